"""`python -m recipe.paec.plan`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.plan.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
