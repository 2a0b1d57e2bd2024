"""`python -m recipe.search`."""

import sys

from recipe.paec.common.entry import ended
from recipe.search.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
