"""`python -m recipe.paec.analyse`."""

import sys

from recipe.paec.analyse.command import main

if __name__ == "__main__":
    sys.exit(main())
