"""`python -m recipe.paec.train`."""

import sys

from recipe.paec.train.command import main

if __name__ == "__main__":
    sys.exit(main())
