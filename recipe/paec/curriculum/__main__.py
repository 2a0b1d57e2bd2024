"""`python -m recipe.paec.curriculum`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.curriculum.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
