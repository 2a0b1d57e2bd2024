"""`python -m recipe.paec.doctor experiment=... [key=value ...]`: is everything there that this run needs?

A line for every check, then one sentence with its remedy for each that failed; exit code 0, or 2. `recipe.paec.train`
begins with the same checks, and so does every launch script through it.
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.config import rules
from recipe.paec.config.command_line import hydra_command
from recipe.paec.config.resolve import resolved
from recipe.paec.doctor.examine import examine


def run(config: DictConfig) -> None:
    """All checks; UserError with everything that failed."""
    config = resolved(config)
    problems = rules.check_config(config) or examine(config)
    if problems:
        raise UserError(*problems)
    say("all checks passed")


def main() -> int:
    """Command line entry; returns the exit code."""
    return hydra_command("train", run, sys.argv[1:], "nothing was changed")
