"""`python -m recipe.paec.tokens`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.tokens.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
