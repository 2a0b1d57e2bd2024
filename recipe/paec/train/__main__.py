"""`python -m recipe.paec.train`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.train.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
