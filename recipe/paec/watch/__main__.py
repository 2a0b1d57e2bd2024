"""`python -m recipe.paec.watch`."""

import sys

from recipe.paec.watch.command import main

if __name__ == "__main__":
    sys.exit(main())
