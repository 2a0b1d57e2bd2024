"""Prepare a data set for training or evaluation: `python -m data_prep SET --output DIR`; see docs/data.md."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import prepare, rows
from data_prep.contract import ContractError
from data_prep.reading import SPLITS, InputError, open_source
from data_prep.sets import DATA_SETS, DataSet
from data_prep.templates import DEFAULT, TEMPLATES


def list_sets() -> str:
    """The table of sets as text: name, hub id, accepted counts, layouts (problem + answer column), note."""
    lines = []
    for data_set in DATA_SETS.values():
        counts = ", ".join(
            f"{split} {prepare.describe_counts(accepted)}" for split, accepted in data_set.counts.items()
        )
        hub = data_set.hub_id + (f" ({data_set.config})" if data_set.config else "")
        lines += [
            f"{data_set.name:16} {counts:26} {hub}",
            f"{'':16} columns: {' | '.join(f'{layout.problem} + {layout.answer}' for layout in data_set.layouts)}",
        ]
        if data_set.note:
            lines.append(f"{'':16} {data_set.note}")
    lines.append(f"{'reasoning_gym':16} {'as many as requested':26} generated: --task NAME[:WEIGHT]")
    return "\n".join(lines)


class _List(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(list_sets())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paec data",
        description="Prepare a data set for training or evaluation (docs/data.md).",
        epilog="example: paec data gsm8k --output data/gsm8k; paec data --list shows all sets",
    )
    parser.add_argument("--list", action=_List, nargs=0, help="list the sets with hub id, counts and columns")
    commands = parser.add_subparsers(dest="set", required=True, metavar="SET")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--output", type=Path, required=True, help=".parquet file, or folder for <split>.parquet")
    common.add_argument("--template", choices=TEMPLATES, default=DEFAULT)
    common.add_argument("--overwrite", action="store_true", help="replace an existing output")
    for data_set in DATA_SETS.values():
        _add_set(commands.add_parser(data_set.name, parents=[common], help=data_set.hub_id), data_set)

    _add_rows(commands.add_parser("rows", parents=[common], help="your own table: any file or hub data set"))
    gym = commands.add_parser("reasoning_gym", parents=[common], help="generated rows of reasoning_gym tasks")
    gym.add_argument("--task", action="append", type=_task, required=True, metavar="NAME[:WEIGHT]")
    gym.add_argument("--size", type=_positive, required=True, help="total number of rows")
    gym.add_argument("--seed", type=_seed, default=0)
    gym.add_argument("--split", choices=("train", "test"), default="train")
    return parser


def _add_rows(command: argparse.ArgumentParser) -> None:
    command.description = "Make training or validation rows from your own table (docs/scorers.md)."
    command.add_argument("--input", required=True, help=".parquet, .json, .jsonl or .csv file, a folder, or a hub id")
    command.add_argument("--question", required=True, metavar="COL", help="column of the problem: text, or messages")
    command.add_argument("--answer", required=True, metavar="COL", help="column of the reference answer")
    command.add_argument("--extra", action="append", default=[], metavar="COL", help="further column for the scorer")
    command.add_argument("--source", metavar="NAME", help="name of the data set (default: that of the input)")
    command.add_argument("--scorer", help="one of this project's scorers; leave it out to use your own function")
    command.add_argument("--split", choices=SPLITS, default="train")
    command.add_argument("--config", help="configuration of the hub data set")
    _add_reading(command)
    _add_training(command)


def _add_set(command: argparse.ArgumentParser, data_set: DataSet) -> None:
    splits = list(data_set.counts)
    command.add_argument("--input", help="file, folder or hub id (default: the set's own hub id)")
    _add_reading(command)
    command.add_argument("--allow-count-mismatch", action="store_true", help="accept a different number of problems")
    command.add_argument("--split", choices=splits, default=splits[0])
    command.set_defaults(keep_duplicates=False, benchmarks=[], drop_contaminated=False)
    if "train" in splits:
        _add_training(command)


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--revision", help="revision of the hub data set")
    command.add_argument("--drop-malformed", action="store_true", help="leave malformed rows out instead of failing")


def _add_training(command: argparse.ArgumentParser) -> None:
    command.add_argument("--keep-duplicates", action="store_true")
    command.add_argument(
        "--benchmarks",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="prepared files whose problems are searched for in the training set",
    )
    command.add_argument(
        "--drop-contaminated", action="store_true", help="leave out rows that contain a benchmark problem"
    )


def _task(text: str) -> tuple[str, float]:
    name, separator, weight = text.partition(":")
    try:
        value = float(weight) if separator else 1.0
    except ValueError:
        value = 0.0
    if not (name and 0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r}: must be NAME or NAME:WEIGHT with a weight > 0")
    return name, value


def _positive(text: str) -> int:
    return _whole(text, 1)


def _seed(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    # A ValueError would be shown with the name of the Python function.
    if not (text.isdecimal() and text.isascii() and len(text) <= 20 and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text}: must be an integer >= {least}")
    return int(text)


def _run(options: argparse.Namespace) -> str:
    path = prepare.output_path(options.output, options.split, options.overwrite)
    for leftover in prepare.clear_leftovers(path):
        print(f"removed {leftover}, left by a killed run", file=sys.stderr)
    if options.set == "reasoning_gym":
        from data_prep import reasoning_gym_sets  # the library takes seconds to import

        tasks = dict(options.task)
        if len(tasks) < len(options.task):
            raise InputError("--task: a task is named twice; name each task once")
        manifest = reasoning_gym_sets.prepare(
            tasks,
            options.size,
            options.seed,
            options.split,
            path,
            template=options.template,
        )
    else:
        if options.split != "train" and (options.keep_duplicates or options.benchmarks or options.drop_contaminated):
            raise InputError("--keep-duplicates, --benchmarks and --drop-contaminated need --split train")
        if options.drop_contaminated and not options.benchmarks:
            raise InputError("--drop-contaminated needs problems to look for; name prepared files with --benchmarks")
        if options.set == "rows":
            source = open_source(options.input, options.split, config=options.config, revision=options.revision)
            data_set = rows.data_set_of(
                source,
                rows.name_of(options.input) if options.source is None else options.source,
                options.question,
                options.answer,
                extra=options.extra,
                scorer=options.scorer,
                strips=options.template != "none",
            )
        else:
            data_set = DATA_SETS[options.set]
            source = open_source(options.input, options.split, data_set.hub_id, data_set.config, options.revision)
        if source.part:
            print(f"{source.name}: reading {source.part}", file=sys.stderr)
        manifest = prepare.prepare(
            data_set,
            source,
            options.split,
            path,
            template=options.template,
            drop_malformed=options.drop_malformed,
            allow_count_mismatch=options.set != "rows" and options.allow_count_mismatch,
            keep_duplicates=options.keep_duplicates,
            benchmarks=options.benchmarks,
            drop_contaminated=options.drop_contaminated,
        )
    if options.set == "rows":
        print(rows.next_step(data_set), file=sys.stderr)
    counts = ", ".join(f"{step.replace('_', ' ')} {count}" for step, count in manifest["counts"].items() if count)
    return f"{path}: {counts}"


def _fix_hash_seed() -> None:
    """Start this process again with PYTHONHASHSEED=0, unless it already has it.

    Some tasks of reasoning_gym iterate over sets of strings, whose order would otherwise differ between processes.
    """
    # Only a process whose own command line this is (`python -m data_prep ...`, `paec data ...`) may be replaced.
    is_own = sys.orig_argv[len(sys.orig_argv) - len(sys.argv) + 1 :] == sys.argv[1:]
    if is_own and os.environ.get("PYTHONHASHSEED") != "0" and not sys.flags.ignore_environment:
        os.execve(sys.executable, sys.orig_argv, os.environ | {"PYTHONHASHSEED": "0"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the package: 0 done, 2 refused with one sentence on stderr, 130 interrupted."""
    options = _parser().parse_args(arguments)
    if options.set == "reasoning_gym" and arguments is None:
        _fix_hash_seed()
    try:
        print(_run(options))
    except (InputError, ContractError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
