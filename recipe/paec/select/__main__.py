"""`python -m recipe.paec.select`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.select.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
