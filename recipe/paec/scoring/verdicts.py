"""The graders' verdicts on one response, and the checks on files that contain them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from recipe.paec.common.errors import UserError
from recipe.paec.scoring.display import in_papers_order

STATUSES = ("ok", "unparsable", "timeout", "error")


@dataclass(frozen=True)
class SampleVerdict:
    """The fields of a graded sample that scoring needs, named as in the sample."""

    correct: bool
    strict: bool
    group: int | None
    status: str
    finish_reason: str | None = None
    tokens: int | None = None
    score: float | None = None
    """Of a scorer with scores between right and wrong; None of the others."""


def check_complete(keys: Iterable[tuple[str, str, int]], places: Iterable[str], name: str) -> None:
    """UserError unless every problem of a benchmark has the samples 0, ..., n - 1, each once.

    Args:
        keys: (benchmark, problem, sample) of every sample.
        places: file and line of every sample, for the error.
        name: name of the file, for the error.
    """
    found: dict[str, dict[str, set[int]]] = {}
    for (benchmark, problem, sample), where in zip(keys, places, strict=True):
        numbers = found.setdefault(benchmark, {}).setdefault(problem, set())
        if sample in numbers:
            raise UserError(
                f"{where}: benchmark {benchmark}, problem {problem}, sample {sample} occurs twice: remove one of them"
            )
        numbers.add(sample)
    for benchmark, problems in found.items():
        n = 1 + max(max(numbers) for numbers in problems.values())
        for problem, numbers in problems.items():
            if len(numbers) < n:
                missing = list(islice((index for index in range(n) if index not in numbers), 6))
                listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
                raise UserError(
                    f"{name}: benchmark {benchmark}, problem {problem}: {len(numbers)} of {n} samples, missing "
                    f"{listed}: give every problem of a benchmark the same number of samples, numbered from 0"
                )


def collect(samples: Iterable[Mapping[str, Any]], name: str) -> dict[str, dict[str, list[SampleVerdict]]]:
    """Verdicts by benchmark and problem in the order of `sample`; all errors in samples are found here."""
    samples = list(samples)
    places = [f"{name}, line {line}" for line in range(1, len(samples) + 1)]
    for sample, where in zip(samples, places, strict=True):
        check_fields(sample, where)
        if "score" in sample:
            check_fields(sample, where, ("score",))
    if not samples:
        raise UserError(f"{name}: contains no samples: run the evaluation first")
    check_complete([(s["benchmark"], s["problem"], s["sample"]) for s in samples], places, name)
    found: dict[str, dict[str, list[SampleVerdict]]] = {}
    for sample in sorted(samples, key=lambda s: s["sample"]):
        verdict = SampleVerdict(**{field: sample.get(field) for field in SampleVerdict.__dataclass_fields__})
        found.setdefault(sample["benchmark"], {}).setdefault(sample["problem"], []).append(verdict)
    return {benchmark: dict(sorted(found[benchmark].items())) for benchmark in in_papers_order(found)}


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "benchmark": ("a non-empty string", lambda v: isinstance(v, str) and v != ""),
    "problem": ("a non-empty string", lambda v: isinstance(v, str) and v != ""),
    "sample": ("an integer >= 0", _integer),
    "correct": ("true or false", lambda v: isinstance(v, bool)),
    "strict": ("true or false", lambda v: isinstance(v, bool)),
    "group": ("an integer >= 0, or null", lambda v: v is None or _integer(v)),
    "status": (f"one of {', '.join(STATUSES)}", lambda v: v in STATUSES),
    "finish_reason": ("a string or null", lambda v: v is None or isinstance(v, str)),
    "tokens": ("an integer >= 0, or null", lambda v: v is None or _integer(v)),
}
_OPTIONAL = {"score": ("a finite number", lambda v: isinstance(v, int | float) and math.isfinite(v))}


def check_fields(sample: Any, where: str, fields: Iterable[str] = tuple(_FIELDS)) -> None:
    """UserError, beginning with `where`, if one of these fields of a graded sample is missing or has the wrong type."""
    if not isinstance(sample, Mapping):
        raise UserError(f"{where}: must be an object, not {type(sample).__name__}: grade the samples again")
    for field in fields:
        wanted, good = (_FIELDS | _OPTIONAL)[field]
        if field not in sample:
            raise UserError(f"{where}, field {field}: is missing: give {wanted}")
        if not good(sample[field]):
            raise UserError(f"{where}, field {field}: must be {wanted}, not {sample[field]!r:.80}")
