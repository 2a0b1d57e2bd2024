"""What policies answered, problem by problem: from evaluations, and from the validations of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recipe.grading.countdown import DATA_SOURCE as EXPRESSIONS
from recipe.paec.common.errors import UserError
from recipe.paec.common.queue_keys import prompt_of
from recipe.paec.compare.evaluations import AGAIN, Evaluation
from recipe.paec.scoring.verdicts import SampleVerdict, check_fields, collect

SAMPLES_FILE, DUMPS = "samples.jsonl", "validation"
"""Of an evaluation; the folder of a run of the pipeline, with `<step>.jsonl`."""

LINE = "delete that line, and keep the others"
"""Remedy for a damaged line of a run's own files."""

Grouped = Callable[[Sequence[tuple[str, Sequence[str | None]]]], list[list[int | None]]]
"""(data source, answers to one problem) for each problem -> which answers are the same (`GraderPool.groups`)."""


@dataclass(frozen=True)
class Problem:
    """One policy's samples of one problem."""

    samples: int
    """n >= 1."""
    correct: int
    """c, how many of them are right."""
    verdicts: tuple[bool, ...] | None = None
    """[n], whether each is right; None where only counts were recorded."""
    classes: tuple[int | None, ...] | None = None
    """[n], equal for equivalent answers, None without an answer; None where answers were not recorded."""
    prompt: str | None = None
    """The prompt's text, where it was recorded."""
    distinct_correct: int | None = None
    """Different right answers, of countdown expressions; None where that was not recorded and cannot be counted."""


@dataclass(frozen=True)
class Policy:
    """One policy's samples of one benchmark."""

    label: str
    """Such as `step 150`."""
    step: int | None
    problems: Mapping[str, Problem]
    scores: Evaluation | None = None
    """Where it was evaluated; None for a validation."""


@dataclass(frozen=True)
class Series:
    """Policies that answered the same problems, in order: one, or the checkpoints of a run."""

    name: str
    """Where the samples come from."""
    benchmark: str
    """Their data source."""
    policies: tuple[Policy, ...]


def problem_of(
    verdicts: Sequence[bool],
    classes: Sequence[int | None] | None,
    prompt: str | None = None,
    expressions: Sequence[str | None] | None = None,
) -> Problem:
    """A problem whose samples are known one by one.

    With `expressions`, the answers' texts, the different ones count instead of the classes: all right answers to a
    countdown problem have one value, and so one class.
    """
    right = None
    if expressions is not None:
        right = len({e.replace(" ", "") for e, good in zip(expressions, verdicts, strict=True) if good and e})
    elif classes is not None:
        right = len({c for c, good in zip(classes, verdicts, strict=True) if good and c is not None})
    return Problem(
        len(verdicts), sum(verdicts), tuple(verdicts), None if classes is None else tuple(classes), prompt, right
    )


# ---- evaluations -----------------------------------------------------------------------------------------------------


def of_evaluations(name: str, steps: Sequence[tuple[int | None, Evaluation]]) -> list[Series]:
    """A series for each benchmark of the evaluations; UserError if one lacks its samples, or a benchmark."""
    found: dict[str, list[Policy]] = {}
    for step, evaluation in steps:
        label = "evaluation" if step is None else f"step {step}"
        for benchmark, problems in _samples(evaluation.path.parent / SAMPLES_FILE).items():
            read = {key: problem_of([v.correct for v in of], [v.group for v in of]) for key, of in problems.items()}
            if benchmark == EXPRESSIONS:  # whose texts are not read here
                read = {key: replace(problem, distinct_correct=None) for key, problem in read.items()}
            found.setdefault(benchmark, []).append(Policy(label, step, read, evaluation))
    for benchmark, policies in found.items():
        if len(policies) < len(steps):
            raise UserError(
                f"{name}: some of its evaluations have no samples of {benchmark}: evaluate every checkpoint on it"
            )
    return [Series(name, benchmark, tuple(policies)) for benchmark, policies in found.items()]


def _samples(path: Path) -> dict[str, dict[str, list[SampleVerdict]]]:
    fields = ("benchmark", "problem", "sample", *SampleVerdict.__dataclass_fields__)

    def read() -> Iterator[dict[str, Any]]:
        for number, row in lines_of(path):
            check_fields(row, f"{path}, line {number}", ("benchmark",))
            yield {field: row[field] for field in fields if field in row}  # without the texts, which are long

    return collect(read(), str(path))


def lines_of(path: Path, remedy: str = AGAIN) -> Iterator[tuple[int, Any]]:
    """(number, content) of each line of a file of JSON lines; UserError, with the remedy, if it is not that."""
    number = 0
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, json.loads(line)
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist: evaluate the model, and keep its samples") from None
    except ValueError as error:
        where = f"{path}, line {number}" if number else str(path)
        raise UserError(f"{where}: is not JSON lines in UTF-8 ({error}): {remedy}") from None


def text_fields(path: Path, number: int, row: Any, *names: str, remedy: str) -> Iterator[str]:
    """The fields `names` of a line; UserError, with the remedy, for one that is not text."""
    for name in names:
        if not isinstance(row, dict) or not isinstance(row.get(name), str):
            raise UserError(f"{path}, line {number}, field {name}: is not text: {remedy}")
        yield row[name]


# ---- validations -----------------------------------------------------------------------------------------------------


def of_counts(path: Path, benchmark: str) -> list[Series]:
    """The validations of a run of the laboratory, a series for each split; only counts are recorded.

    Raises:
        UserError: a line that is not the counts of a validation.
    """
    found: dict[str, dict[int, Policy]] = {}
    for number, row in lines_of(path, LINE):
        try:
            n, step, split = int(row["samples"]), int(row["step"]), str(row["split"])
            counts = zip(row["correct"], row["distinct"], strict=True)
            problems = {str(i): Problem(n, int(c), distinct_correct=int(d)) for i, (c, d) in enumerate(counts)}
            if n < 1 or not problems or not all(0 <= p.correct <= n for p in problems.values()):
                raise ValueError(f"counts of {n} samples")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}, line {number}: is not a validation's counts ({error!r}): {LINE}") from None
        found.setdefault(split, {})[step] = Policy(f"step {step}", step, problems)
    return [
        Series(split, benchmark, tuple(of_step[step] for step in sorted(of_step))) for split, of_step in found.items()
    ]


def of_dumps(
    folder: Path, benchmark: str, grouped: Grouped | None = None, last_step: int | None = None
) -> list[Series]:
    """The validations of a run of the pipeline as one series; no series without their files.

    A problem is known by its prompt and reference, the same in every validation; a sample that was lost counts as
    wrong and without an answer.

    Args:
        folder: with `<step>.jsonl`.
        benchmark: data source of all its problems.
        grouped: groups equal answers; None: `classes` stay unknown.
        last_step: the run's last recorded step; later files are left from steps that were discarded. None: all count.

    Raises:
        UserError: a line that is not a graded response.
    """
    steps = sorted(int(path.stem) for path in folder.glob("*.jsonl") if path.stem.isdecimal())
    steps = [step for step in steps if last_step is None or step <= last_step]
    policies = []
    for step in steps:
        answers = _answers(folder / f"{step}.jsonl")
        n = max(map(len, answers.values()))
        padded = {key: of + [(False, None)] * (n - len(of)) for key, of in answers.items()}
        texts = [(benchmark, [text for _, text in of]) for of in padded.values()]
        classes: Sequence[list[int | None] | None] = grouped(texts) if grouped else [None] * len(texts)
        problems: dict[str, Problem] = {}
        seen: Counter[tuple[str, str]] = Counter()  # several problems may have one prompt and reference
        for ((_, prompt, truth), of), numbers in zip(padded.items(), classes, strict=True):
            seen[prompt, truth] += 1
            expressions = [text for _, text in of] if grouped and benchmark == EXPRESSIONS else None
            one = problem_of([v for v, _ in of], numbers, prompt, expressions)
            problems[f"{prompt}\n{truth}\n{seen[prompt, truth]}"] = one
        policies.append(Policy(f"step {step}", step, problems))
    return [Series("validation", benchmark, tuple(policies))] if policies else []


def _answers(path: Path) -> dict[tuple[str, str, str], list[tuple[bool, str | None]]]:
    """(prompt's name, its text, reference) -> (right, answer) of each response."""
    found: dict[tuple[str, str, str], list[tuple[bool, str | None]]] = {}
    for number, row in lines_of(path, LINE):
        try:
            key = prompt_of(row["uid"]), str(row["input"]), str(row["gts"])
            answer = row["pred"] if isinstance(row["pred"], str) and row["pred"] else None
            found.setdefault(key, []).append((row["acc"] == 1.0, answer))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path}, line {number}: is not a graded response ({error!r}): {LINE}") from None
    if not found:
        raise UserError(f"{path}: contains no responses: delete it")
    return found


# ---- pairs -----------------------------------------------------------------------------------------------------------


def pair_of(base: Policy, trained: Policy, what: str) -> list[tuple[Problem, Problem]]:
    """(base's, trained's) samples of every problem; UserError, beginning with `what`, if their problems differ."""
    if base.problems.keys() != trained.problems.keys():
        missing = len(base.problems.keys() ^ trained.problems.keys())
        raise UserError(
            f"{what}: {missing} problem(s) were answered by only one of {base.label} and {trained.label}: give both "
            "the same problems"
        )
    return [(base.problems[key], trained.problems[key]) for key in sorted(base.problems)]
