"""Estimators of accuracy from repeated samples, and of their error. Plain numbers, NumPy only.

A benchmark is P problems with n samples each; `correct` is the grader's verdict on each sample. Intervals and tests
resample problems (or, `t_interval`, treat training runs as the repetitions); samples of one problem are never treated
as independent problems.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Coverage that all intervals aim at."""

RESAMPLES = 10_000
"""Bootstrap resamples: the Monte Carlo error of an interval's ends is then about 2 % of its width."""

CHUNK = 2**20
"""Problem indices drawn at a time: bounds the memory of a bootstrap for any P."""

COLUMNS = 256
"""Quantities resampled at a time: bounds the memory for any n."""

ROUNDING = 1e-12
"""Sums that cancel in exact arithmetic end up a few ulp away from 0: closer than this is equal."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; `low` and `high` are None if a single repetition says nothing about the spread."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference(Estimate):
    """The mean of paired differences, its interval, and the two-sided p value of "no difference" (None as above)."""

    p: float | None


# ---- one problem -----------------------------------------------------------------------------------------------------


def average(correct: Sequence[bool]) -> float:
    """avg@n of one problem: share of its n >= 1 samples that are correct."""
    if not len(correct):
        raise ValueError("the average of zero samples is undefined")
    return sum(map(bool, correct)) / len(correct)


def pass_at_every_k(n: int, c: int) -> np.ndarray:
    """pass@1, ..., pass@n of one problem with c correct samples among n, [n] float64.

    pass@k = 1 - C(n-c, k) / C(n, k), the probability that k of the n samples, drawn without replacement, contain a
    correct one: unbiased for every k <= n (Chen et al. 2021, arXiv 2107.03374, eq. 1). The ratio is the product of
    (n - c - i) / (n - i) over i < k: no factorial, nothing above 1, exactly 0 once k > n - c.
    """
    if not 0 <= c <= n or n < 1:
        raise ValueError(f"{c} correct of {n} samples")
    i = np.arange(n)
    return 1 - np.cumprod(np.maximum(n - c - i, 0) / (n - i))


def pass_at_k(n: int, c: int, k: int) -> float:
    """pass@k of one problem with c correct samples among n >= k, see `pass_at_every_k`."""
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples")
    return float(pass_at_every_k(n, c)[k - 1])


def majority(groups: Sequence[int | None], correct: Sequence[bool]) -> bool:
    """maj@n of one problem: is the answer that most of its samples gave correct?

    Samples vote for their group (equivalent answers share one); a sample without an answer (None) does not vote. Ties
    are won by the group whose first sample came first. The verdict is that of the winning group's first sample.
    Without votes the problem counts as wrong.
    """
    if len(groups) != len(correct):
        raise ValueError(f"{len(groups)} groups of {len(correct)} samples")
    # A Counter keeps the order of first appearance, and max() returns the first maximum: this is the tie rule.
    votes = Counter(group for group in groups if group is not None)
    if not votes:
        return False
    return bool(correct[list(groups).index(max(votes, key=votes.__getitem__))])


def maj_at_k(groups: Sequence[int | None], correct: Sequence[bool], k: int) -> float:
    """maj@k of one problem: mean of `majority` over the n // k disjoint blocks of k consecutive samples.

    Unbiased for the majority of k samples, because each block is k independent samples; k = n is the usual number. The
    last n % k samples are not used.
    """
    n = len(groups)
    if not 1 <= k <= n:
        raise ValueError(f"maj@{k} of {n} samples")
    return average([majority(groups[i : i + k], correct[i : i + k]) for i in range(0, n - k + 1, k)])


def inconsistent_groups(groups: Sequence[int | None], correct: Sequence[bool]) -> int:
    """Groups of one problem whose members got different verdicts: equivalence and grader contradict each other."""
    verdicts = {(group, bool(c)) for group, c in zip(groups, correct, strict=True) if group is not None}
    return len(verdicts) - len({group for group, _ in verdicts})


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, ... below n, and n: the k of maj@k."""
    return [2**i for i in range((n - 1).bit_length())] + [n]


# ---- checkpoints of a run as points ----------------------------------------------------------------------------------


def hypervolume(x: np.ndarray, y: np.ndarray, reference: tuple[float, float]) -> np.ndarray:
    """Area above `reference` that the points (x, y) dominate, both the more the better; [..., K] -> [...]."""
    x, y = np.maximum(x - reference[0], 0), np.maximum(y - reference[1], 0)
    order = np.argsort(-x, axis=-1, kind="stable")
    x, y = np.take_along_axis(x, order, -1), np.take_along_axis(y, order, -1)
    following = np.concatenate([x[..., 1:], np.zeros_like(x[..., :1])], -1)
    return ((x - following) * np.maximum.accumulate(y, -1)).sum(-1)


# ---- problems as the repetitions: the bootstrap ----------------------------------------------------------------------


def resampled_means(values: np.ndarray, resamples: int, seed: int | Sequence[int]) -> np.ndarray:
    """Means over P problems drawn with replacement from the P given (Efron 1979).

    Args:
        values: [P] or [P, M], finite, P >= 1; M quantities of the same problems, which are resampled together.
        resamples: number of means R.
        seed: seed of `numpy.random.default_rng`; the same seed and P give the same draws.

    Returns:
        [R] or [R, M] float64.
    """
    values = _finite(values)
    problems = len(values)
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK // problems)
    means = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        means.append(resampled_counts(rng, problems, rows) @ values / problems)
    return np.concatenate(means)


def resampled_counts(rng: np.random.Generator, n: int, rows: int) -> np.ndarray:
    """How often each of n things is drawn in n draws with replacement, [rows, n] int."""
    drawn = n * np.arange(rows)[:, None] + rng.integers(n, size=(rows, n))
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


def bootstrap_interval(
    *benchmarks: Sequence[float], level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean over problems with its percentile bootstrap interval.

    Args:
        benchmarks: one value for each problem, [P]. For several benchmarks the unweighted mean of their means is taken,
            and the problems of each are resampled by themselves.
        level: the (1 - level)/2 and (1 + level)/2 quantiles of the resampled means are the interval.

    Returns:
        The estimate, without interval where a benchmark has fewer than two problems. With few problems the interval is
        somewhat narrow (its variance is (P - 1)/P of the unbiased one), and if all values are equal it has no width
        at all, which does not prove certainty.
    """
    value, means = _mean_of_means(benchmarks, resamples, seed)
    return Estimate(value, *_percentiles(means, level))


def bootstrap_intervals(
    values: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """`bootstrap_interval` of every column of values [P, M], from the same draws."""
    values = _finite(values)
    estimates = []
    for start in range(0, values.shape[1], COLUMNS):
        block = values[:, start : start + COLUMNS]
        means = resampled_means(block, resamples, (seed, 0)) if len(block) > 1 else np.empty((0, block.shape[1]))
        estimates += [
            Estimate(float(column.mean()), *_percentiles(resampled, level))
            for column, resampled in zip(block.T, means.T, strict=True)
        ]
    return estimates


def paired_bootstrap(
    *pairs: tuple[Sequence[float], Sequence[float]], level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """mean(a) - mean(b) over the same problems in the same order, with its interval and the p value of "no difference".

    The problems are resampled, each with its two values. p is twice the smaller of the shares of resampled differences
    at or beyond 0 on either side, min(1, 2 min(#{d <= 0} + 1, #{d >= 0} + 1) / (R + 1)): never 0 (Davison & Hinkley
    1997, section 4.2), and below 1 - level just where the interval leaves 0 out, up to the +1.

    Args:
        pairs: (a [P], b [P]) of a benchmark; several benchmarks as in `bootstrap_interval`.
        level: of the interval.

    Returns:
        The difference; neither interval nor p where a benchmark has fewer than two problems. With about ten problems or
        fewer, or where few of them differ, p is smaller than it should be.
    """
    for a, b in pairs:
        if len(a) != len(b):
            raise ValueError(f"{len(a)} and {len(b)} problems cannot be paired")
    value, means = _mean_of_means([_finite(a) - _finite(b) for a, b in pairs], resamples, seed)
    if not len(means):
        return Difference(value, None, None, None)
    # Differences of 0 count on both sides.
    beyond = int(min(np.count_nonzero(means <= ROUNDING), np.count_nonzero(means >= -ROUNDING)))
    return Difference(value, *_percentiles(means, level), min(1.0, 2 * (beyond + 1) / (resamples + 1)))


def _mean_of_means(benchmarks: Sequence[Sequence[float]], resamples: int, seed: int) -> tuple[float, np.ndarray]:
    """The mean over benchmarks, and its resampled values; none where a benchmark has a single problem."""
    arrays = [_finite(values) for values in benchmarks]
    value = float(np.mean([values.mean() for values in arrays]))
    if min(map(len, arrays)) < 2:
        return value, np.empty(0)
    # A separate seed for each: benchmarks of the same size would otherwise be resampled in lockstep.
    return value, np.mean([resampled_means(v, resamples, (seed, i)) for i, v in enumerate(arrays)], axis=0)


def _percentiles(means: np.ndarray, level: float) -> tuple[float | None, float | None]:
    if not len(means):
        return None, None
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if not array.size or not np.isfinite(array).all():
        raise ValueError("the mean needs at least one value, and all values must be finite")
    return array


# ---- training runs as the repetitions: Student's t -------------------------------------------------------------------


def student_quantile(level: float, freedom: int) -> float:
    """t with P(|T| <= t) = level, 0 < level < 1, for T of Student's distribution with `freedom` >= 1 degrees.

    The probability rises with theta = atan(t / sqrt(freedom)), which is found by bisection.
    """
    if not 0 < level < 1 or freedom < 1:
        raise ValueError(f"no quantile for level {level} and {freedom} degrees of freedom")
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(theta: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(theta)), a finite sum (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    term, total = (math.cos(theta) if odd else 1.0), 0.0
    for j in range(1 + odd, freedom, 2):
        total += term
        term *= j / (j + 1) * math.cos(theta) ** 2
    return (theta + math.sin(theta) * total) * 2 / math.pi if odd else math.sin(theta) * total


def t_interval(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean over S training runs (seeds) +- Student's t with S - 1 degrees of freedom; no interval for one run."""
    array = _finite(values)
    mean = float(array.mean())
    if len(array) < 2:
        return Estimate(mean, None, None)
    half = student_quantile(level, len(array) - 1) * float(array.std(ddof=1)) / math.sqrt(len(array))
    return Estimate(mean, mean - half, mean + half)


def t_difference(values: Sequence[float], level: float = LEVEL) -> Difference:
    """`t_interval` of the differences of S pairs of training runs, with the two-sided p value of "it is 0"."""
    array, found = _finite(values), t_interval(values, level)
    if len(array) < 2:
        return Difference(found.value, None, None, None)
    spread, freedom = float(array.std(ddof=1)) / math.sqrt(len(array)), len(array) - 1
    theta = math.atan2(abs(found.value), spread * math.sqrt(freedom))
    return Difference(found.value, found.low, found.high, 1 - _within(theta, freedom) if found.value else 1.0)
