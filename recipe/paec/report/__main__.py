"""`python -m recipe.paec.report`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.report.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
