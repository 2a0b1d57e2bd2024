"""What a folder or file on the command line holds: metrics, samples of its policies, token records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from recipe.grading.pool import GraderPool
from recipe.grading.sources import supports
from recipe.paec.analyse import metrics
from recipe.paec.analyse.phrases import DEFAULT, PhraseList
from recipe.paec.analyse.sampled import DUMPS, Policy, Series, of_counts, of_dumps, of_evaluations
from recipe.paec.common.errors import UserError
from recipe.paec.common.records import METRICS_FILE, PROBLEMS_FILE
from recipe.paec.compare.evaluations import parse_run
from recipe.paec.report.benchmarks import is_evaluation, read_scored
from recipe.paec.report.runs import CONFIG_FILE, dig, is_run, read_records, read_run

EVALUATIONS = "evaluation"
"""Folder of a run with its evaluations."""


@dataclass(frozen=True)
class Source:
    """A run, an evaluation, or a file of metrics."""

    name: str
    path: Path
    records: tuple[Mapping[str, Any], ...] = ()
    """The steps of its metrics, in order."""
    series: tuple[Series, ...] = ()
    remarks: list[str] = field(default_factory=list)
    """What is missing or cannot be read, one sentence each."""
    phrases: PhraseList = DEFAULT
    """What `planning` counts."""
    score: Callable[[Source, list[str]], list[dict[str, Any]]] | None = None
    """(source, list that gets a sentence for what is missing) -> results of `utility`; None without a model."""


def read_source(argument: str, answers: bool = True) -> Source:
    """What `FOLDER`, `NAME=FOLDER` or a file of metrics holds.

    Args:
        argument: of the command line.
        answers: whether equal answers of a run's validations have to be grouped, which starts graders.

    Raises:
        UserError: it does not exist, is none of these, or an evaluation that was named cannot be read.
    """
    if Path(argument).is_file():
        remarks: list[str] = []
        return Source(Path(argument).stem, Path(argument), read_records(Path(argument), remarks), remarks=remarks)
    name, folder = parse_run(argument, "a run or an evaluation")
    if is_evaluation(folder):
        scored = read_scored(folder, name)
        return Source(scored.name, folder, series=tuple(of_evaluations("evaluation", scored.steps)))
    if is_run(folder):
        return _of_run(name or folder.resolve().name, folder, answers)
    raise UserError(f"{argument}: has neither metrics.jsonl nor scores: give a run, an evaluation or a metrics file")


def _of_run(name: str, folder: Path, answers: bool) -> Source:
    remarks: list[str] = []
    records = read_records(folder / METRICS_FILE, remarks)
    source = Source(name, folder, records, remarks=remarks)
    series = _attempt(source, lambda: _validations(source, answers))
    for place in sorted(path for path in (folder / EVALUATIONS).glob("*") if is_evaluation(path)):
        series += _attempt(source, lambda place=place: of_evaluations(place.name, read_scored(place).steps))
    return Source(name, folder, records, tuple(series), remarks)


def _attempt(source: Source, read: Callable[[], Sequence[Series]]) -> list[Series]:
    """What `read` returns; of a part of a run that cannot be read, its error as a remark."""
    try:
        return list(read())
    except UserError as error:
        source.remarks.extend(error.errors)
        return []


def _validations(source: Source, answers: bool) -> Sequence[Series]:
    named = dict.fromkeys(prefix.partition("/")[2] for prefix in metrics.sources(source.records))
    benchmark = next(iter(named)) if len(named) == 1 else "all validation sets"
    if (source.path / PROBLEMS_FILE).is_file():
        return of_counts(source.path / PROBLEMS_FILE, benchmark)
    last_step = source.records[-1]["step"] if source.records else None
    dumps = partial(of_dumps, source.path / DUMPS, benchmark, last_step=last_step)
    if not (source.path / DUMPS).is_dir() or not answers:
        return dumps()
    if len(named) != 1:
        source.remarks.append(
            "the recorded responses do not say to which validation set they belong, so their answers are not grouped: "
            "evaluate the checkpoints"
        )
        return dumps()
    scorers = dig(read_run(source.path).config, "reward.scorers") or {}
    if not supports(benchmark, scorers):
        source.remarks.append(
            f"{CONFIG_FILE}, field reward.scorers: names no scorer for {benchmark}, so its answers are not grouped"
        )
        return dumps()
    with GraderPool(scorers=scorers) as pool:
        return dumps(pool.groups)


def base_policies(argument: str) -> dict[str, Policy]:
    """Benchmark -> policy of the evaluation that all are compared with; of several checkpoints, the first.

    Raises:
        UserError: it is not an evaluation.
    """
    name, folder = parse_run(argument, "an evaluation")
    if not is_evaluation(folder):
        raise UserError(f"--base {argument}: is not an evaluation: give a folder with scores.json or curve.json")
    scored = read_scored(folder, name)
    return {series.benchmark: series.policies[0] for series in of_evaluations(scored.name, scored.steps[:1])}
