"""What training changes at easy and at hard problems: bins of the base's accuracy.

Problems that the base solved by luck are in too high a bin, and would lose accuracy without any training ("regression
to the mean"). So one half of the base's samples chooses a problem's bin, and the other half is what the trained policy
is compared with; all halves are averaged, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

import numpy as np

from recipe.paec.analyse.answers import answer_entropy
from recipe.paec.analyse.intervals import Interval, divided, intervals, number, shown
from recipe.paec.analyse.pairs import Pair, pair_name
from recipe.paec.analyse.sampled import Problem
from recipe.paec.common.errors import UserError
from recipe.paec.scoring.difficulty import BINS, bin_of
from recipe.paec.scoring.display import markdown


def halves(samples: int, correct: int) -> np.ndarray:
    """A problem's weight in each bin, and there times the accuracy of the other half of its samples, [BINS, 2].

    The first half has samples // 2 of the n >= 2 samples; means over all choices of it.
    """
    first = samples // 2
    found = np.zeros((BINS, 2))
    for right in range(max(0, correct - (samples - first)), min(first, correct) + 1):
        share = comb(correct, right) * comb(samples - correct, first - right) / comb(samples, first)
        found[bin_of(right / first)] += share, share * (correct - right) / (samples - first)
    return found


def of_bins(problems: Sequence[tuple[Problem, Problem]]) -> np.ndarray:
    """Of each problem and bin: weight, and times it the base's and the trained accuracy, [P, BINS, 3]."""
    found = []
    for base, trained in problems:
        weights = halves(base.samples, base.correct)
        found.append(np.c_[weights, weights[:, 0] * trained.correct / trained.samples])
    return np.array(found)


def of_answers(problems: Sequence[tuple[Problem, Problem]]) -> np.ndarray | None:
    """Answer entropy of base and trained policy times the weight, [P, BINS, 2].

    None where answers are not known, or the numbers of samples differ: n samples have at most ln n nats.
    """
    if any(p.classes is None for both in problems for p in both):
        return None
    if len({p.samples for both in problems for p in both}) > 1:
        return None
    weights = [halves(base.samples, base.correct)[:, :1] for base, _ in problems]
    values = [[[answer_entropy(p.classes or ()) for p in both]] for both in problems]
    return np.array(weights) * np.array(values)


def same_samples(problems: Sequence[tuple[Problem, Problem]]) -> list[float | None]:
    """[BINS] change of accuracy where all samples of the base choose the bin and are compared: biased, for contrast."""
    base, trained = (np.array([both[i].correct / both[i].samples for both in problems]) for i in (0, 1))
    bins = bin_of(base)
    changes = [float((trained - base)[bins == i].mean()) if (bins == i).any() else None for i in range(BINS)]
    return changes


def analyse(pair: Pair) -> dict[str, Any]:
    """Accuracy, its change and the entropy of answers by bins of the base's accuracy, with intervals.

    Returns:
        What the pair is, and `bins`: low and high, problems (expected number), base and trained accuracy, change,
        same_samples (`same_samples`), and the answer entropies base_answers and trained_answers (None as of
        `of_answers`). Bins without problems are left out.

    Raises:
        UserError: the base has one sample for each problem.
    """
    if min(base.samples for base, _ in pair.problems) < 2:
        raise UserError(f"{pair_name(pair.about())}: difficulty: needs two samples of a problem: validate with more")
    values, answers = of_bins(pair.problems), of_answers(pair.problems)
    columns = values if answers is None else np.concatenate([values, answers], -1)
    naive, bins = same_samples(pair.problems), []
    for i in range(BINS):
        if not values[:, i, 0].any():
            continue
        base, trained, change, *more = intervals(columns[:, i], _means)
        bins.append(
            {
                **{"low": i / BINS, "high": (i + 1) / BINS, "problems": float(values[:, i, 0].sum())},
                **{"base": base, "trained": trained, "change": change, "same_samples": naive[i]},
                **dict(zip(("base_answers", "trained_answers"), more or [None, None], strict=True)),
            }
        )
    return {**pair.about(), "bins": bins}


def _means(means: np.ndarray) -> np.ndarray:
    """Weighted means of a bin, [..., 1 + M] -> [..., 1 + M]: base, trained, change, and what else there is."""
    found = divided(means[..., 1:], means[..., :1])
    return np.concatenate([found[..., :2], found[..., 1:2] - found[..., :1], found[..., 2:]], -1)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, a row for each bin with at least one expected problem."""
    head = ["base -> trained", "base's accuracy", "problems", "base", "trained", "change", "change, same samples"]
    answers = any(row["base_answers"] for result in results for row in result["bins"])
    rows = []
    for result in results:
        for place, row in enumerate(row for row in result["bins"] if row["problems"] >= 1):
            entropies: list[Interval] = [row["base_answers"], row["trained_answers"]] if answers else []
            rows.append(
                [
                    "" if place else pair_name(result),
                    f"{row['low']:.1f} - {row['high']:.1f}",
                    f"{row['problems']:.1f}",
                    *(shown(row[name]) for name in ("base", "trained", "change")),
                    number(row["same_samples"]),
                    *map(shown, entropies),
                ]
            )
    return markdown([head + ["answer entropy, base", "trained"] * answers, *rows])
