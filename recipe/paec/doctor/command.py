"""`python -m recipe.paec.doctor experiment=... [key=value ...]`: is everything there that this run needs?

A line for every check, then one sentence with its remedy for each that failed; exit code 0, or 2. `recipe.paec.train`
begins with the same checks, and so does every launch script through it.
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from recipe.paec.common.console import asked_for_help, say
from recipe.paec.common.errors import UserError
from recipe.paec.config import rules
from recipe.paec.config.command_line import hydra_command
from recipe.paec.config.resolve import resolved
from recipe.paec.doctor.examine import examine

USAGE = """
usage: paec doctor experiment=NAME [key=value ...]
Checks that everything is there that a training needs: versions, model, data, memory, disk, GPUs, Ray, network.
Prints a line for each check, and for each that failed what to do. Exit code 0, or 2 if something is missing.
  experiment=NAME   a file of configs/experiment; all arguments are those of paec train (docs/doctor.md)
example: paec doctor experiment=qwen7b cluster=gpu_1x8
"""


def run(config: DictConfig) -> None:
    """All checks; UserError with everything that failed."""
    config = resolved(config)
    errors = rules.check_config(config) or examine(config)
    if errors:
        raise UserError(*errors)
    say("all checks passed")


def main() -> int:
    """Command line entry; returns the exit code."""
    if asked_for_help(sys.argv[1:], USAGE):
        return 0
    return hydra_command("train", run, sys.argv[1:], "nothing was changed")
