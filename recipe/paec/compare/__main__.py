"""`python -m recipe.paec.compare`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.compare.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
