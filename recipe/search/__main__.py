"""`python -m recipe.search`."""

import sys

from recipe.search.command import main

if __name__ == "__main__":
    sys.exit(main())
