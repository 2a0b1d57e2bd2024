"""`python -m recipe.paec.report`."""

import sys

from recipe.paec.report.command import main

if __name__ == "__main__":
    sys.exit(main())
