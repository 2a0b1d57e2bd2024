"""`python -m recipe.paec.analyse`."""

import sys

from recipe.paec.analyse.command import main
from recipe.paec.common.entry import ended

if __name__ == "__main__":
    sys.exit(ended(main))
