"""`python -m recipe.paec.grid`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.grid.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
