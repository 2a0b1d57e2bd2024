"""`python -m recipe.paec.evaluate`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.evaluate.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
