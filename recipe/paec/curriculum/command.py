"""`python -m recipe.paec.curriculum <arguments of a training>`: score its prompts with the policy's own samples.

Draws data.curriculum.samples responses to every training prompt with vLLM, as training would, groups equivalent
answers (math_verify) and writes the semantic entropy of every prompt, in nats, as extra_info.semantic_entropy into a
copy of the data file: X.parquet -> X.semantic_entropy.parquet next to it. The same arguments for recipe.paec.train then
train in stages. Responses are kept in RUN_ROOT/curriculum/<file>-<digest>/ and are not drawn again.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common import folder_kinds
from recipe.paec.common.console import asked_for_help, say
from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import model_folder
from recipe.paec.common.process_tree import run_preparation
from recipe.paec.common.prompts import load_tokenizer
from recipe.paec.config import rules, scored_files
from recipe.paec.config.command_line import hydra_command, with_flags
from recipe.paec.config.resolve import resolved, resolved_paths
from recipe.paec.config.scored_files import original_path, scored_path
from recipe.paec.curriculum.prompt_scores import GROUP, score_file
from recipe.paec.doctor import examine, inputs, node

USAGE = """
usage: paec curriculum experiment=NAME [key=value ...] [--dry-run]
Scores the training prompts with the policy's own samples, to train from easy to hard (docs/curriculum.md).
  experiment=NAME   a file of configs/experiment; all arguments are those of paec train
  data.curriculum.samples=N   responses per prompt
  --dry-run         checks everything and starts nothing; --print-config prints the resolved configuration alone
Writes X.semantic_entropy.parquet next to every training file X.parquet; training with the same arguments uses it.
example: paec curriculum experiment=tiny_cpu curriculum=semantic_entropy
"""


def run(config: DictConfig) -> None:
    """Score all training files; raises UserError for anything the user can fix."""
    config = resolved(config)
    if errors := rules.check_config(config):
        raise UserError(*errors)
    if config.data.curriculum is None:
        raise UserError(f"curriculum=none: there is nothing to score: add {GROUP}, or leave curriculum= out here")
    if config.data.apply_chat_template_kwargs:
        raise UserError(
            "data.apply_chat_template_kwargs: is not supported here: put the settings into model.chat_template"
        )
    if config.run.print_config:
        say(OmegaConf.to_yaml(config))
        if not config.run.dry_run:
            return
    files = [original_path(file) for file in scored_files.train_files(config)]
    plain = config.copy()  # the checks on the data before it has scores
    plain.data.curriculum, plain.data.train_files = None, [str(file) for file in files]
    checks = examine.basics(config) + (node.ray_checks(config) if config.cluster.ray_address is None else [])
    errors = [problem for check in checks for problem in check.errors]
    if config.run.prepare_command and not config.run.dry_run and not errors:
        run_preparation([sys.executable, *shlex.split(config.run.prepare_command)])
        config, plain = resolved_paths(config), resolved_paths(plain)
    to_come = Path(config.run.prepare_dir) if config.run.prepare_command and config.run.dry_run else None
    errors += inputs.check_inputs(plain, to_come)
    if errors:
        raise UserError(*errors)
    if config.run.dry_run:
        say("\n".join(f"{file} -> {scored_path(file)}" for file in files) + "\nall checks passed")
        return
    folder = model_folder(config.model.path)
    name, remedy = f"model.path={config.model.path}", "set model.chat_template to one"
    tokenizer = load_tokenizer(folder, config.model.chat_template, name, remedy)
    for file in files:
        score_file(config, file, folder, tokenizer)
    say("train with the same arguments: python -m recipe.paec.train ... " + GROUP)


def main() -> int:
    """Command line entry; returns the exit code."""
    if asked_for_help(sys.argv[1:], USAGE):
        return 0
    arguments = with_flags(sys.argv[1:], "run.")
    if not any(a.startswith("curriculum=") for a in arguments):
        arguments.append(GROUP)
    same = folder_kinds.CURRICULUM.same_command(folder_kinds.CURRICULUM.fresh in arguments)
    return hydra_command("train", run, arguments, f"{same} resumes from the responses generated so far")
