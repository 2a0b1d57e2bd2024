"""Existing evaluations: one for each run, seeds grouped by method."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.paec.common.errors import UserError
from recipe.paec.scoring.scores import FORMAT, per_problem

AGAIN = "delete it and evaluate again; the responses are kept"
SCORES_FILE, CURVE_FILE = "scores.json", "curve.json"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one model."""

    path: Path
    """Its scores.json."""
    scores: Mapping[str, Any]
    """The content, the problems of each benchmark in the order of their ids."""

    @property
    def own_name(self) -> str:
        """Name of the training run, or else of the folder."""
        return self.scores["provenance"]["run"] or self.path.parent.resolve().name


@dataclass(frozen=True)
class SeedGroup:
    """A row of the table: one run for each seed."""

    name: str
    runs: tuple[Evaluation, ...]

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """The training seed of each run by its name; None if a name has none, or two have the same."""
        found = [seed_of(run.own_name) for run in self.runs]
        return tuple(found) if None not in found and len(set(found)) == len(found) else None


def read_json(path: Path, made_by: str) -> Any:
    """The content of a JSON file; UserError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {made_by}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not valid JSON ({error}): {made_by} again") from None


def read_run(path: Path) -> Evaluation:
    """A scores.json; UserError if it is not one, or of another format."""
    scores = read_json(path, "evaluate the model")
    try:
        if scores["format"] != FORMAT:
            raise UserError(f"{path}: has format {scores['format']!r}, but this version reads {FORMAT}: {AGAIN}")
        if not scores["benchmarks"] or not all(b["per_problem"] for b in scores["benchmarks"].values()):
            raise UserError(f"{path}, field benchmarks: is empty: evaluate the model on a benchmark")
        provenance, copies = scores["provenance"], scores["contamination"]
        provenance["protocol"].keys(), provenance["benchmarks"].keys(), provenance["run"], provenance["step"]
        provenance["grader"].keys(), provenance["versions"].keys()
        if generation := provenance["generation"]:
            generation["least_room"], generation["chat_template"], generation["engine"].keys()
        for name in scores["benchmarks"] if copies else []:
            copies["benchmarks"][name]["ids"]
        for benchmark in scores["benchmarks"].values():
            benchmark["per_problem"] = dict(sorted(benchmark["per_problem"].items()))
            for metric in ("avg", "maj", "pass"):
                per_problem(benchmark, metric)
    except KeyError as error:
        raise UserError(f"{path}, field {error.args[0]}: missing: {AGAIN}") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: does not contain the scores of an evaluation ({error}): {AGAIN}") from None
    return Evaluation(path, scores)


def read_curve_file(folder: Path) -> tuple[str, dict[int, Path]]:
    """A folder's curve.json: the name of the run, and step -> its scores.json, in order; UserError if it is none."""
    path = folder / CURVE_FILE
    content = read_json(path, "evaluate all checkpoints of the run")
    try:
        run, files = content["run"], {int(entry["step"]): folder / entry["scores"] for entry in content["steps"]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a curve ({error!r}): evaluate all checkpoints of the run again") from None
    if not files:
        raise UserError(f"{path}, field steps: is empty: evaluate the checkpoints of the run")
    return run, dict(sorted(files.items()))


SEED_PART = r"(?:\w+\.)*seed=?(\d+)"
"""The part of a run's name that contains its seed, without the `-`, `_` or `,` before it."""


def without_seed(name: str) -> str:
    """A run's name without the part that contains its seed: `-seed2`, `_seed2`, `-trainer.seed=2`, `,data.seed=2`."""
    return re.sub(rf"[-_,]{SEED_PART}$", "", re.sub(rf"(?<=[-_,]){SEED_PART},", "", name))


def seed_of(name: str) -> int | None:
    """The seed in a run's name, see `without_seed`; None if there is none."""
    found = re.search(rf"(?:^|[-_,]){SEED_PART}(?:,|$)", name)
    return int(found[1]) if found else None


def grouped(named: Sequence[tuple[str | None, str, Any]]) -> dict[str, list[Any]]:
    """Things by the name of their method, in order.

    Args:
        named: (name given or None, name to derive one from, thing).

    Raises:
        UserError: two things have the same underived name, so it is not known that they are seeds of one method.
    """
    for name, count in Counter(own for given, own, _ in named if given is None).items():
        if count > 1:
            raise UserError(f"{count} runs are named {name}: give each its own name, as in my_method=FOLDER")
    groups: dict[str, list[Any]] = {}
    for given, own, thing in named:
        groups.setdefault(" ".join((given or without_seed(own)).split()), []).append(thing)
    return groups


def parse_run(argument: str, kind: str = "an evaluation") -> tuple[str | None, Path]:
    """(name or None, folder) of `folder` or `name=folder`; UserError, with its `kind`, if the folder does not exist."""
    # Names and folders may contain = themselves if an override made them, so what exists decides.
    if Path(argument).is_dir():
        return None, Path(argument)
    splits = [(argument[:i], argument[i + 1 :]) for i, character in enumerate(argument) if character == "="]
    for name, folder in splits:
        if name.strip() and Path(folder).is_dir():
            return name, Path(folder)
    raise UserError(f"{argument}: does not exist: give the folder of {kind}, or name=FOLDER")


def distinct(arguments: Sequence[str], kind: str = "an evaluation") -> list[tuple[str | None, Path]]:
    """`parse_run` of each argument; UserError if a folder is given twice."""
    runs = [parse_run(argument, kind) for argument in arguments]
    for folder, count in Counter(folder.resolve() for _, folder in runs).items():
        if count > 1:
            raise UserError(f"{folder}: is given {count} times: name each run once")
    return runs


def read_methods(arguments: Sequence[str]) -> list[SeedGroup]:
    """The methods that a command line names, each with its seeds, in order; UserError as above."""
    runs = []
    for name, folder in distinct(arguments):
        run = read_run(folder / SCORES_FILE)
        runs.append((name, run.own_name, run))
    groups = [SeedGroup(name, tuple(group)) for name, group in grouped(runs).items()]
    for group in groups:
        _check_seeds(group)
    return groups


def _check_seeds(group: SeedGroup) -> None:
    """UserError if two seeds of a method are the same model or the same responses: the interval would be too narrow."""
    for field, what in (("samples_sha256", "responses"), ("model_fingerprint", "model")):
        seen: dict[str, Evaluation] = {}
        for run in group.runs:
            value = run.scores["provenance"].get(field)
            if value is not None and (other := seen.setdefault(value, run)) is not run:
                raise UserError(
                    f"{run.path} and {other.path} count as two seeds of {group.name}, but are of the same {what} "
                    f"({field}): leave one out, or give it another name, as in other=FOLDER"
                )


def choose(methods: Sequence[SeedGroup], benchmarks: Sequence[str]) -> list[SeedGroup]:
    """The methods with these benchmarks only; UserError if a run lacks one."""

    def chosen(run: Evaluation) -> Evaluation:
        if absent := [name for name in benchmarks if name not in run.scores["benchmarks"]]:
            raise UserError(f"{run.path} has no scores on {', '.join(absent)}: evaluate the model on it")
        return Evaluation(
            run.path, {**run.scores, "benchmarks": {name: run.scores["benchmarks"][name] for name in benchmarks}}
        )

    return [SeedGroup(method.name, tuple(map(chosen, method.runs))) for method in methods]
