"""`python -m recipe.paec.tokens`."""

import sys

from recipe.paec.tokens.command import main

if __name__ == "__main__":
    sys.exit(main())
