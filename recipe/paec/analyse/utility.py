"""Reasoning utility: how far each step of a response lowers the entropy of the reference answer.

A model reads the prompt and the first j steps of a response, and then the answer: h_j is the mean entropy of its
distributions over the answer's tokens, nats. Useful steps lower it (arXiv 2508.20395).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipe.grading.sources import kind
from recipe.paec.analyse.intervals import divided, intervals, shown
from recipe.paec.analyse.sampled import SAMPLES_FILE, Policy, Series, lines_of, text_fields
from recipe.paec.analyse.sources import Source
from recipe.paec.scoring.display import markdown

BORDERS = {"paragraph": r"\n\s*\n", "line": r"\n", "sentence": r"(?<=[.!?])\s"}
"""What ends a step; white space that follows belongs to it."""
BEFORE_ANSWER = r"The answer is \boxed{"
"""What stands before the answer, after the steps; not a part of it."""

NO_ANSWERS = ("countdown", "reasoning_gym")
"""Scorers whose references are not an answer."""


@dataclass(frozen=True)
class Settings:
    """What is scored, and how."""

    model: str
    """Hugging Face folder, checkpoint or run, as the user wrote it."""
    border: str = "paragraph"
    """One of BORDERS."""
    before: str = BEFORE_ANSWER
    responses: int = 4
    """At most that many responses to a problem are read, its first ones."""


@dataclass(frozen=True)
class Sample:
    """One response to one problem."""

    problem: str
    prompt: str
    """The user's turn."""
    response: str
    answer: str
    """The reference."""
    correct: bool


@dataclass(frozen=True)
class Scored:
    """The reference answer after 0 to J steps of a response, under a model; its last step, the answer, is none."""

    entropy: tuple[float, ...]
    """[J + 1] h_j: mean over the answer's tokens of the entropy of the distribution that predicts them, nats."""
    surprisal: tuple[float, ...]
    """[J + 1] mean of -log p of the answer's tokens, nats."""


Scorer = Callable[[Sequence[Sample]], list[Scored | None]]
"""Samples -> what a model makes of each; None for one that is too long for it."""


# ---- one response ----------------------------------------------------------------------------------------------------


def step_ends(text: str, border: str) -> list[int]:
    """Characters of `text` after which a step ends, the last one at the end of the text; [] for an empty text.

    A border without text before it ends no step.
    """
    first = len(text) - len(text.lstrip())
    if first == len(text):
        return []
    ends = [match.end() for match in re.finditer(rf"(?:{BORDERS[border]})\s*", text) if match.start() > first]
    return ends if ends and ends[-1] == len(text) else [*ends, len(text)]


QUANTITIES = ("steps", "before", "after", "change", "slope", "falling", "surprisal_before", "surprisal_after")
"""Of a response with J steps before its last: J; h_0; h_J; the mean of h_j - h_(j-1); the slope of a line through
h_0 ... h_J by least squares; the share of steps with h_j < h_(j-1); and the surprisal with no step and with all J."""


def quantities(scored: Scored) -> list[float]:
    """The QUANTITIES of one response, J >= 1."""
    h = np.array(scored.entropy)
    changes, place = np.diff(h), np.arange(len(h)) - (len(h) - 1) / 2
    slope = float(place @ h / (place @ place))
    ends = (float(h[0]), float(h[-1]), float(changes.mean()))
    return [len(changes), *ends, slope, float((changes < 0).mean()), scored.surprisal[0], scored.surprisal[-1]]


# ---- a policy --------------------------------------------------------------------------------------------------------


def of_responses(samples: Sequence[Sample], scored: Sequence[Scored | None]) -> dict[str, Any]:
    """`right` and `wrong`: number of responses, and the means of their QUANTITIES with intervals over the problems.

    All responses count alike; those of a single step are left out; a group without responses is None.
    """
    found: dict[str, Any] = {}
    for group, wanted in (("right", True), ("wrong", False)):
        sums: dict[str, np.ndarray] = {}
        for sample, of_it in zip(samples, scored, strict=True):
            row = sums.setdefault(sample.problem, np.zeros(len(QUANTITIES) + 1))
            if of_it is not None and len(of_it.entropy) > 1 and sample.correct == wanted:
                row += [*quantities(of_it), 1]
        values = np.array(list(sums.values()))
        number = int(values[:, -1].sum()) if len(values) else 0
        means = intervals(values, lambda mean: divided(mean[..., :-1], mean[..., -1:])) if number else ()
        found[group] = {"responses": number, **dict(zip(QUANTITIES, means, strict=True))} if number else None
    return found


def samples_of(series: Series, policy: Policy, responses: int) -> list[Sample]:
    """The first `responses` samples of every problem of an evaluated policy that have text and a reference.

    Raises:
        UserError: a line that is not a graded sample.
    """
    assert policy.scores is not None
    path = policy.scores.path.parent / SAMPLES_FILE
    found = []
    for number, row in lines_of(path):
        if not isinstance(row, dict) or row.get("benchmark") != series.benchmark:
            continue
        names = ("problem", "prompt", "response", "ground_truth")
        texts = text_fields(path, number, row, *names, remedy="evaluate the model again")
        sample = Sample(*texts, correct=row["correct"] is True)
        if row["sample"] < responses and sample.response.strip() and sample.answer.strip():
            found.append(sample)
    return found


def evaluated(source: Source) -> Iterator[tuple[Series, Policy]]:
    """The policies of a source that were evaluated."""
    for series in source.series:
        for policy in series.policies:
            if policy.scores is not None:
                yield series, policy


def of_source(source: Source, remarks: list[str], settings: Settings, scorer: Scorer) -> list[dict[str, Any]]:
    """Every evaluated policy of a source.

    Returns:
        source, series, benchmark, policy, model, border, before, problems, and what `of_responses` gives.
    """
    found = []
    for series, policy in evaluated(source):
        if kind(series.benchmark) in NO_ANSWERS:
            remarks.append(
                f"{source.name}: utility: {series.benchmark} is left out: its references describe a problem, not an "
                "answer"
            )
            continue
        samples = samples_of(series, policy, settings.responses)
        if not samples:
            remarks.append(f"{source.name}: utility: no response to {series.benchmark} has text and a reference")
            continue
        scored = scorer(samples)
        single = sum(one is not None and len(one.entropy) == 1 for one in scored)
        if missing := sum(one is None for one in scored):
            remarks.append(f"{source.name}: utility: {missing} of {len(samples)} responses are too long for the model")
        if single:
            remarks.append(
                f"{source.name}: utility: {single} of {len(samples)} responses are a single step and left out: another "
                f"--border of {', '.join(BORDERS)} may divide them (now {settings.border})"
            )
        if single + missing == len(samples):
            continue
        place = {"source": source.name, "series": series.name, "benchmark": series.benchmark, "policy": policy.label}
        how = {"model": settings.model, "border": settings.border, "before": settings.before}
        problems = len({sample.problem for sample in samples})
        found.append({**place, **how, "problems": problems, **of_responses(samples, scored)})
    if not any(evaluated(source)):
        remarks.append(f"{source.name}: utility: needs an evaluation, with its samples: paec evaluate")
    return found


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, a row for the right and one for the wrong responses of each policy."""
    head = ["samples of", "policy", "responses", "steps", "h_0", "h_J", "change a step", "slope", "falling"]
    rows = []
    for result in results:
        place = ", ".join(dict.fromkeys((result["source"], result["series"], result["benchmark"])))
        name = f"{place} ({result['problems']} problems; {result['border']}s; {result['model']})"
        for group in ("right", "wrong"):
            of_it = result[group]
            if of_it is not None:
                columns = ("before", "after", "change", "slope", "falling", "surprisal_before", "surprisal_after")
                values = [shown(of_it["steps"], ".1f"), *(shown(of_it[column]) for column in columns)]
                rows.append([name, result["policy"], f"{of_it['responses']} {group}", *values])
                name = ""
    return markdown([[*head, "surprisal_0", "surprisal_J"], *rows])
