"""`python -m recipe.paec.doctor experiment=... [key=value ...]`: checks that everything this run needs is there.

One line for every check, then one sentence with a remedy for each that failed; exit code 0, or 2. `recipe.paec.train`
starts with the same checks, and so does every launch script.
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
Checks everything that a training needs: versions, model, data, memory, disk, GPUs, Ray, network.
Prints one line per check, and a remedy for each that failed. Exit code 0, or 2 if a check failed.
  experiment=NAME   a file of configs/experiment; all arguments are those of paec train (docs/doctor.md)
example: paec doctor experiment=qwen7b cluster=gpu_1x8
"""


def run(config: DictConfig) -> None:
    """Run all checks; UserError with everything that failed."""
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
