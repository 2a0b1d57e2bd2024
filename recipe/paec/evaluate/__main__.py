"""`python -m recipe.paec.evaluate`."""

import sys

from recipe.paec.evaluate.command import main

if __name__ == "__main__":
    sys.exit(main())
