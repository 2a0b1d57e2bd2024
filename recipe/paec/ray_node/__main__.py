"""`python -m recipe.paec.ray_node`."""

import sys

from recipe.paec.common.entry import ended
from recipe.paec.ray_node.command import main

if __name__ == "__main__":
    sys.exit(ended(main))
