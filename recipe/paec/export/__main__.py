"""`python -m recipe.paec.export`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.export.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
