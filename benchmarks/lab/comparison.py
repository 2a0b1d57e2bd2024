"""Methods against the baseline: differences with intervals, corrected for their number, and domination."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from benchmarks.lab.records import REFERENCE, Runs, gap_at_equal_accuracy, interval, over_problems, points, quantities
from recipe.paec.scoring.estimators import LEVEL, Difference, hypervolume, t_difference
from recipe.paec.scoring.two_level import Statistic, crossed_bootstrap

DRAWS = 10_000


def differences(runs: Runs, baseline: Runs, draws: int = DRAWS, seed: int = 0) -> dict[str, Difference]:
    """Each outcome minus the baseline's, estimate, 95 % interval and p value.

    By name: "pass@32" and "expressions", the hypervolumes, of a task without majority votes; "equal <quantity>", at
    equal accuracy; "accuracy" and "last <quantity>", at the last step; and "entropy", there too. The quantities are
    those of `records.quantities`.

    The two-level bootstrap of `paec compare` (`crossed_bootstrap`) over the seeds and the problems that both methods
    have. With a single common seed only the problems are resampled: the spread between trainings is not in it then. The
    entropy, a mean over all responses, only varies by seed, and a bootstrap over three seeds alone is far too narrow:
    its interval is Student's t over the pairs of seeds.
    """
    common = [s for s in runs.seeds if s in baseline.seeds]
    rows = [[one.seeds.index(s) for s in common] for one in (runs, baseline)]
    sides = [
        {name: of[of_side] for name, of in quantities(one).items()}
        for one, of_side in zip((runs, baseline), rows, strict=True)
    ]

    def gaps(name: str, shares: np.ndarray) -> np.ndarray:
        """[B, S] of every seed, the problems weighted by shares [B, P]."""
        kind, _, quantity = name.rpartition(" ")
        if kind == "last" or quantity == "accuracy":
            one, other = (over_problems(side[quantity][:, -1], shares) for side in sides)
            return one - other
        curves = [tuple(over_problems(side[key], shares) for key in ("accuracy", quantity)) for side in sides]
        if kind == "equal":
            return gap_at_equal_accuracy(*curves)
        one, other = (hypervolume(*curve, REFERENCE[quantity]) for curve in curves)
        return one - other

    def statistic(name: str) -> Statistic:
        if len(common) == 1:
            return lambda problems: gaps(name, problems)[:, 0]
        return lambda seeds, problems: (seeds * gaps(name, problems)).sum(-1)

    sizes = [runs.correct.shape[-1]] if len(common) == 1 else [len(common), runs.correct.shape[-1]]
    beside = [name for name in sides[0] if name != "accuracy"]
    # The hypervolumes' reference points were chosen for the quick start's quantities, and need both.
    names = list(beside) if set(beside) == set(REFERENCE) else []
    names += [*(f"equal {name}" for name in beside), "accuracy", *(f"last {name}" for name in beside)]
    found = {name: crossed_bootstrap(statistic(name), sizes, resamples=draws, seed=seed) for name in names}
    entropy = [one.entropy[of_side, -1] for one, of_side in zip((runs, baseline), rows, strict=True)]
    found["entropy"] = t_difference(entropy[0] - entropy[1])
    return found


def mean_gap(gaps: np.ndarray, draws: int = DRAWS) -> Difference:
    """The mean of paired differences [S, P] of seeds and problems, by the bootstrap of `differences`."""
    return crossed_bootstrap(
        lambda seeds, problems: (seeds * over_problems(gaps, problems)).sum(-1), gaps.shape, resamples=draws
    )


def dominated(one: Runs, baseline: Runs) -> dict[str, int]:
    """In how many common seeds every checkpoint of the baseline has one of `one` that is at least as good in both.

    Both are accuracy and, by its name, pass@32 or distinct correct answers. The step before training is left out: it is
    the same policy.
    """
    ours, theirs = (points(runs.correct, runs.distinct) for runs in (one, baseline))
    found = dict.fromkeys(REFERENCE, 0)
    for name in REFERENCE:
        for seed in set(one.seeds) & set(baseline.seeds):
            x, y = (value[one.seeds.index(seed), 1:, None] for value in ours[name])
            its_x, its_y = (value[baseline.seeds.index(seed), None, 1:] for value in theirs[name])
            found[name] += bool(((x >= its_x) & (y >= its_y)).any(0).all())
    return found


def added(names: Iterable[str]) -> list[tuple[str, str]]:
    """(`pass_at_k`, `pass_at_k+paec`) of every two methods together whose first is there alone as well."""
    found = [*names]
    return [(alone, both) for both in found if "+" in both and (alone := both.partition("+")[0]) in found]


def corrected(p: Mapping[str, float | None]) -> dict[str, float | None]:
    """p values by name, corrected for their number by Holm's method (1979); None stays None, and is not counted."""
    known = sorted((value, name) for name, value in p.items() if value is not None)
    found: dict[str, float | None] = dict.fromkeys(p)
    largest = 0.0
    for place, (value, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * value))
        found[name] = largest
    return found


def is_significant(p: float | None) -> bool:
    """Whether a p value says, at LEVEL, that the difference is not 0; without one (a single seed) no difference is.

    Not the interval, whose end is as near to 0 as the draws are coarse where p is about 0.05.
    """
    return p is not None and LEVEL + p < 1  # not p < 1 - LEVEL, which is above 0.05 in floats


def in_bold(difference: Difference, digits: int, p: float | None) -> str:
    """A cell of a table: the difference with its interval, bold where `p` says that it is significant."""
    text = interval(difference, digits)
    return f"**{text}**" if is_significant(p) else text


def in_words(difference: Difference, p: float | None) -> str:
    """What a corrected p value says: better, worse or no significant difference."""
    if p is None:
        return "one seed: no interval"
    return ("better" if difference.value > 0 else "worse") if is_significant(p) else "no significant difference"
