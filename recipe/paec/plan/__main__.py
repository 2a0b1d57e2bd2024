"""`python -m recipe.paec.plan`."""

import sys

from recipe.paec.plan.command import main

if __name__ == "__main__":
    sys.exit(main())
