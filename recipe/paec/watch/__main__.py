"""`python -m recipe.paec.watch`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.watch.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
