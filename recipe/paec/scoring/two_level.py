"""Differences between methods that were trained several times: a bootstrap over seeds and problems, with BCa intervals.

Seeds and problems are crossed: every training run is scored on every problem. Both are samples, of the trainings and of
the problems that there might have been, so both are resampled. Plain numbers, NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from recipe.paec.scoring.estimators import CHUNK, LEVEL, RESAMPLES, ROUNDING, Difference, resampled_counts

NORMAL = NormalDist()

Statistic = Callable[..., np.ndarray]
"""A quantity as a function of the weights of each factor's levels, [B, n] with rows that sum to 1 -> [B]."""


def crossed_bootstrap(
    statistic: Statistic, sizes: Sequence[int], level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """A statistic of crossed factors (seeds, problems) with its BCa interval, and the p value of "it is 0".

    The levels of each factor are resampled with replacement, independently of the other factors, and a cell counts
    (draws of its seed) x (draws of its problem) times: the pigeonhole bootstrap (Owen 2007, Annals of Applied
    Statistics 1(2)). What is particular to one seed on one problem is counted up to three times over, which makes the
    interval wider, never narrower; a factor with n levels is counted (n - 1)/n times, which makes it too narrow if n is
    small (docs/comparing.md has the coverage).

    Args:
        statistic: called with one weight matrix per factor, [B, n] -> [B] float64; equal weights give the estimate.
        sizes: levels n of each factor. With a single factor this is the ordinary bootstrap.
        level: of the interval.
        resamples: number R of draws.
        seed: each factor has a random stream of its own, (seed, place of the factor).

    Returns:
        The estimate with interval and p; neither if a factor has a single level, whose spread nobody can know.
    """
    value = float(statistic(*(np.full((1, n), 1 / n) for n in sizes))[0])
    if min(sizes) < 2:
        return Difference(value, None, None, None)
    streams = [np.random.default_rng((seed, place)) for place in range(len(sizes))]
    rows = max(1, CHUNK // max(sizes))
    resampled = np.concatenate(
        [
            statistic(
                *(
                    resampled_counts(stream, n, min(rows, resamples - start)) / n
                    for stream, n in zip(streams, sizes, strict=True)
                )
            )
            for start in range(0, resamples, rows)
        ]
    )
    skew = acceleration([leave_one_out(statistic, sizes, place) for place in range(len(sizes))])
    return Difference(value, *bca_interval(value, resampled, skew, level), bca_p(value, resampled, skew))


def two_level_difference(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    same_seeds: bool,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """mean(a) - mean(b) of two methods with several seeds each, by `crossed_bootstrap`.

    Args:
        pairs: (a [S_a, P], b [S_b, P]) of each benchmark, the same problems in the same order; the unweighted mean of
            their differences is taken. The problems of each benchmark are resampled by themselves, the seeds for all
            benchmarks together: they are the same training runs.
        same_seeds: row i of a and of b is the same seed, so that they are drawn together; else each method's seeds are
            drawn by themselves, and their numbers may differ.

    Raises:
        ValueError: arrays that do not fit together, or values that are not finite.
    """
    arrays = [(np.asarray(a, dtype=float), np.asarray(b, dtype=float)) for a, b in pairs]
    first, second = (len(side) for side in arrays[0])
    for a, b in arrays:
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.size or not b.size:
            raise ValueError(f"[seeds, problems] {a.shape} and {b.shape} cannot be paired by problem")
        if (len(a), len(b)) != (first, second) or (same_seeds and first != second):
            raise ValueError(f"{len(a)} and {len(b)} seeds, where {first} and {second} were expected")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError("all values must be finite")
    seeds = [first] if same_seeds else [first, second]

    def statistic(*weights: np.ndarray) -> np.ndarray:
        of_a, of_b, of_problems = weights[0], weights[len(seeds) - 1], weights[len(seeds) :]
        gaps = [((of_a @ a - of_b @ b) * w).sum(-1) for (a, b), w in zip(arrays, of_problems, strict=True)]
        return np.mean(gaps, axis=0)

    return crossed_bootstrap(statistic, [*seeds, *(a.shape[1] for a, _ in arrays)], level, resamples, seed)


def leave_one_out(statistic: Statistic, sizes: Sequence[int], place: int) -> np.ndarray:
    """The statistic without each level of the factor at `place`, [n]: the jackknife."""
    n = sizes[place]
    weights = [np.full((n, size), 1 / size) for size in sizes]
    weights[place] = (1 - np.eye(n)) / (n - 1)
    return statistic(*weights)


def acceleration(without: Sequence[np.ndarray]) -> float:
    """BCa's acceleration, a sixth of the estimate's skewness, from the jackknife values of each factor.

    sum_f sum_i U_fi^3 / n_f^3 / (6 (sum_f sum_i U_fi^2 / n_f^2)^1.5), U_fi = (n_f - 1)(mean_f - value without i): Efron
    and Tibshirani 1993, eq. 14.15, for independent samples as `scipy.stats.bootstrap` has it. 0 if nothing varies.
    """
    influences = [(len(values) - 1) * (values.mean() - values) for values in without]
    cubes = sum(float((u**3).sum()) / len(u) ** 3 for u in influences)
    squares = sum(float((u**2).sum()) / len(u) ** 2 for u in influences)
    return cubes / (6 * squares**1.5) if squares > ROUNDING**2 else 0.0


def bca_interval(value: float, resampled: np.ndarray, skew: float, level: float = LEVEL) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap interval (Efron 1987; Efron and Tibshirani 1993, eq. 14.10).

    Args:
        value: the estimate.
        resampled: [R] its bootstrap values.
        skew: `acceleration`.
        level: 0.95 for a 95 % interval.

    Returns:
        (low, high): quantiles of `resampled`; both are the value if all resampled values are.
    """
    bias = _bias(value, resampled)
    ends = [NORMAL.inv_cdf((1 - level) / 2), NORMAL.inv_cdf((1 + level) / 2)]
    shares = [NORMAL.cdf(bias + _stretched(bias + end, -skew)) for end in ends]
    low, high = np.quantile(resampled, shares)
    return float(low), float(high)


def bca_p(value: float, resampled: np.ndarray, skew: float) -> float:
    """Two-sided p of "the true value is 0": 1 - the level at which the BCa interval just reaches 0.

    Counts one resampled value more on either side, as `paired_bootstrap`, and is never below 2 / (R + 1).
    """
    bias, count = _bias(value, resampled), len(resampled)
    tails = []
    for sign in (1, -1):
        share = min(np.count_nonzero(sign * resampled <= ROUNDING) + 1, count) / (count + 1)
        offset = sign * NORMAL.inv_cdf(share) - bias
        tails.append(NORMAL.cdf(sign * (_stretched(offset, skew) - bias)))
    return max(2 / (count + 1), min(1.0, 2 * min(tails)))


def _bias(value: float, resampled: np.ndarray) -> float:
    """BCa's bias correction z0: the normal quantile of the share of resampled values below the estimate.

    Equal ones count half; the share is kept half a draw away from 0 and 1.
    """
    count = len(resampled)
    below = np.count_nonzero(resampled < value - ROUNDING) + np.count_nonzero(resampled <= value + ROUNDING)
    return NORMAL.inv_cdf(float(np.clip(below / (2 * count), 0.5 / count, 1 - 0.5 / count)))


def _stretched(x: float, skew: float) -> float:
    """x / (1 + skew x); beyond its pole, infinity with the sign of x."""
    below = 1 + skew * x
    return x / below if below > 0 else float(np.copysign(np.inf, x))
