"""`python -m recipe.paec.select RUN --output FOLDER`: a training file of the prompts whose accuracy changed most.

The first run counts the right responses to every prompt in each epoch (`prompts.jsonl`); the score of a prompt is the
population standard deviation of these accuracies (arXiv 2504.20571). The rows of the chosen prompts are repeated until
they fill a batch, for one-example RLVR.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.paec.common.console import asked_for_help, complain, complain_of_files, say
from recipe.paec.common.errors import UserError
from recipe.paec.common.folder_kinds import no_lab
from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.paec.run import prompt_record
from recipe.paec.scoring.display import markdown
from recipe.paec.select.ranking import SCORE, chosen, entry, prompts_of, ranked, read_rows
from recipe.paec.select.rows import write

USAGE = """
usage: paec select RUN --output FOLDER [--top N | --rank R,...] [--rows N] [--epochs N] [--overwrite]
Writes a training file of the prompts whose accuracy changed most between a run's epochs (docs/curriculum.md).
  RUN          folder of a run; its training files must still be there
  --output     .parquet file, or a folder for train.parquet; a report beside it ranks every prompt
  --top N      choose the N prompts whose accuracy changed most (default 1)
  --rank R,... choose the prompts of these ranks instead, such as 1,2,13
  --rows N     rows of the file: the chosen prompts, repeated in turn (default: the run's data.train_batch_size)
  --epochs N   least number of epochs in which a prompt must have been seen (default 2)
  --overwrite  replace what this command wrote there
example: paec select outputs/tiny_cpu-paec --top 1 --output data/one_example
"""


def settings_of(run: Path) -> DictConfig:
    """The configuration of a run.

    Raises:
        UserError: it is not a run, or its accuracies do not measure the policy: with
            `algorithm.filter_groups.enable` a prompt counts only when it is neither all right nor all wrong.
    """
    no_lab(run, "record of its prompts")
    try:
        config = OmegaConf.load(run / "config.yaml")
        files, enabled = config.data.train_files, OmegaConf.select(config, "algorithm.filter_groups.enable")
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{run / 'config.yaml'}: is not the configuration of a run ({error}): give a run") from None
    if enabled:
        raise UserError(
            f"{run}: was trained with algorithm.filter_groups.enable=true, which leaves out every prompt whose "
            "responses are all right or all wrong, so its accuracies are not known: train the first run without it"
        )
    config.data.train_files = [files] if isinstance(files, str) else list(files)
    return config


def ranks_of(top: int | None, rank: str | None) -> list[int]:
    """The ranks of `--top N` or `--rank R,...`, in the given order; UserError if they are not different numbers."""
    if rank is None:
        if top is not None and top < 1:
            raise UserError(f"--top {top}: must be >= 1")
        return list(range(1, (top or 1) + 1))
    if top is not None:
        raise UserError("--top and --rank: give only one of them")
    try:
        found = [int(part) for part in rank.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise UserError(f"--rank {rank}: must be different integers >= 1, separated by commas, such as 1,2,13")
    return found


def missing_steps(run: Path, steps: Sequence[int]) -> list[str]:
    """A sentence if the record lacks steps that the run took, because an earlier version took them."""
    lost = {record["step"] for record in read_metrics(run / METRICS_FILE) if record["step"] > 0} - {*steps}
    if not lost:
        return []
    return [
        f"{run}: {len(lost)} step(s) between {min(lost)} and {max(lost)} are not in {prompt_record.PROMPTS_FILE}, so "
        "the ranking does not count their responses"
    ]


def shown(entries: Sequence[Mapping[str, Any]]) -> str:
    """The chosen prompts as a Markdown table."""
    head = ["rank", "deviation", "accuracy", "difficulty", "epochs", "data source", "index"]
    rows = [
        [
            *(str(one["rank"]), f"{one[SCORE]:.4f}", f"{one['accuracy']:.3f}", one["difficulty"]),
            *(str(len(one["epochs"])), one["data_source"], str(one["index"])),
        ]
        for one in entries
    ]
    return markdown([head, *rows])


def select(options: argparse.Namespace) -> None:
    """The command; UserError for anything the user can fix."""
    run, ranks = options.run, ranks_of(options.top, options.rank)
    if options.epochs < 2:
        raise UserError(f"--epochs {options.epochs}: a deviation needs at least 2")
    config = settings_of(run)
    counts, steps = prompt_record.read(run)
    for remark in missing_steps(run, steps):
        print(f"warning: {remark}", file=sys.stderr)
    rows = read_rows(config.data.train_files)
    prompts = prompts_of(rows, counts)
    ranking, few = ranked(prompts, options.epochs)
    chosen(ranking, few, ranks, options.epochs)
    size = config.data.train_batch_size if options.rows is None else options.rows
    about = {"run": str(run), "steps": len(steps), "least_epochs": options.epochs}
    path, picked = write(options.output, rows, ranking, few, ranks, size, about, options.overwrite)
    labels = Counter(entry(prompt, None)["difficulty"] for prompt in prompts)
    say(shown(picked).rstrip())
    counted = ", ".join(f"{labels[label]} {label}" for label in ("easy", "medium", "hard"))
    seldom = f"{len(few)} seen in fewer than {options.epochs} epochs"
    say(f"{len(prompts)} prompts: {counted}, {labels[None]} never seen; {seldom}")
    say(f"{path}: {size} rows; train on it with 'data.train_files=[{path}]'")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if asked_for_help(given, USAGE):
        return 0
    parser = argparse.ArgumentParser(prog="paec select", usage=USAGE.strip().removeprefix("usage: "), add_help=False)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--top", type=int)
    parser.add_argument("--rank")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--overwrite", action="store_true")
    try:
        select(parser.parse_args(given))
    except UserError as error:
        return complain(error.errors)
    except OSError as error:
        return complain_of_files(error, "choose another place with --output")
    return 0
