"""`python -m recipe.paec.doctor`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.doctor.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
