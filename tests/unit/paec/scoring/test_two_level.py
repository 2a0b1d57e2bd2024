"""The two-level bootstrap against all resamples, a closed form and a hand calculation; BCa against SciPy."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from recipe.paec.scoring import two_level
from recipe.paec.scoring.estimators import Difference, paired_bootstrap
from recipe.paec.scoring.two_level import (
    acceleration,
    bca_interval,
    bca_p,
    crossed_bootstrap,
    leave_one_out,
    two_level_difference,
)

SKEWED = np.array([0.0, 0.0, 0.03125, 0.0, 0.0625, 0.25, 0.0, 0.90625, 0.125, 0.0, 0.5, 0.03125])
A = np.array([[0.1, 0.9, 0.4], [0.3, 0.6, 0.2]])
B = np.array([[0.0, 0.8, 0.1], [0.2, 0.9, 0.3]])


def mean_of(values: np.ndarray):
    """The statistic "weighted mean", of one factor."""
    return lambda weights: weights @ values


def drawn_by(values: np.ndarray, resamples: int = 4000) -> np.ndarray:
    """Bootstrap means from a generator of this test."""
    return values[np.random.default_rng(7).integers(len(values), size=(resamples, len(values)))].mean(1)


# ---- BCa, one level --------------------------------------------------------------------------------------------------


def test_acceleration_by_hand():
    # Mean 2; influences (n - 1)(mean_f - value without i) = x - 2 = -2, -1, 3: cubes 18, squares 14.
    values = np.array([0.0, 1.0, 5.0])
    without = leave_one_out(mean_of(values), [3], 0)
    assert without == pytest.approx([3.0, 2.5, 0.5])
    assert acceleration([without]) == pytest.approx(18 / 27 / (6 * (14 / 9) ** 1.5))
    assert acceleration([np.full(4, 0.3)]) == 0.0, "nothing varies"


def test_bca_by_hand():
    # Of the values 0, ..., 99 the estimate 30 has 30.5 % below it; without skewness the ends move by twice the bias.
    normal, resampled = NormalDist(), np.arange(100.0)
    bias = normal.inv_cdf(0.305)
    low, high = bca_interval(30.0, resampled, 0.0)
    assert low == pytest.approx(99 * normal.cdf(2 * bias - 1.959964), abs=1e-4)
    assert high == pytest.approx(99 * normal.cdf(2 * bias + 1.959964), abs=1e-4)
    # Skewness 0.1: the lower end is at bias + u / (1 - 0.1 u), u = bias - 1.96.
    u = bias - 1.959964
    assert bca_interval(30.0, resampled, 0.1)[0] == pytest.approx(99 * normal.cdf(bias + u / (1 - 0.1 * u)), abs=1e-4)


def test_bca_without_bias_and_skewness_is_the_percentile_interval():
    resampled = np.arange(-50.0, 51.0)
    assert bca_interval(0.0, resampled, 0.0) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=1e-9)


SCIPY = {"interval": (0.052083333333333336, 0.39687661882186137), "level_90": (0.0625, 0.34375)}
"""What SciPy 1.17.1 gave in `test_bca_is_scipys`, for environments without it."""


def test_bca_is_what_scipy_recorded():
    resampled, skew = drawn_by(SKEWED), acceleration([leave_one_out(mean_of(SKEWED), [12], 0)])
    assert bca_interval(SKEWED.mean(), resampled, skew) == pytest.approx(SCIPY["interval"], abs=1e-12)
    assert bca_interval(SKEWED.mean(), resampled, skew, level=0.9) == pytest.approx(SCIPY["level_90"], abs=1e-12)


def test_bca_is_scipys():
    stats = pytest.importorskip("scipy.stats", reason="needs SciPy, which is not a part of the environment")
    given = stats.bootstrap((SKEWED,), np.mean, method="BCa", n_resamples=4000, rng=np.random.default_rng(3))
    skew = acceleration([leave_one_out(mean_of(SKEWED), [12], 0)])
    ours = bca_interval(SKEWED.mean(), given.bootstrap_distribution, skew)
    assert ours == pytest.approx(tuple(given.confidence_interval), abs=1e-12), "from the same resamples"
    alone = crossed_bootstrap(mean_of(SKEWED), [12], resamples=100_000)
    large = stats.bootstrap((SKEWED,), np.mean, method="BCa", n_resamples=100_000, rng=np.random.default_rng(3))
    assert (alone.low, alone.high) == pytest.approx(tuple(large.confidence_interval), abs=0.006), "from our own"
    # What is recorded above, from the resamples of this test.
    for level, name in ((0.95, "interval"), (0.9, "level_90")):
        resampled = stats._resampling.BootstrapResult(None, drawn_by(SKEWED), None)
        again = stats.bootstrap(
            (SKEWED,), np.mean, method="BCa", n_resamples=0, bootstrap_result=resampled, confidence_level=level
        )
        assert tuple(again.confidence_interval) == pytest.approx(SCIPY[name], abs=1e-12)


def test_two_independent_groups_are_scipys():
    """Unpaired seeds on equal problems: the difference of two groups' means."""
    stats = pytest.importorskip("scipy.stats", reason="needs SciPy, which is not a part of the environment")
    # Multiples of 1/32 and powers of two: sums are exact, and so is which resamples equal the estimate.
    a, b = np.array([6, 8, 10, 16]) / 32, np.array([3, 7, 8, 4, 5, 9, 2, 6]) / 32

    def gap(x, y, axis=-1):
        return np.mean(x, axis) - np.mean(y, axis)

    given = stats.bootstrap((a, b), gap, method="BCa", n_resamples=4000, rng=np.random.default_rng(3))

    def ours(of_a, of_b):
        return of_a @ a - of_b @ b

    skew = acceleration([leave_one_out(ours, [4, 8], place) for place in range(2)])
    found = bca_interval(a.mean() - b.mean(), given.bootstrap_distribution, skew)
    assert found == pytest.approx(tuple(given.confidence_interval), abs=1e-12)


# ---- p ---------------------------------------------------------------------------------------------------------------


def test_p_is_one_minus_the_level_whose_interval_reaches_zero():
    rng, seen = np.random.default_rng(4), 0
    for _ in range(50):
        values = rng.exponential(size=15) - rng.uniform(0.2, 1.8)
        skew = acceleration([leave_one_out(mean_of(values), [15], 0)])
        resampled = drawn_by(values, 20_000)
        p = bca_p(values.mean(), resampled, skew)
        if 0.01 < p < 0.5:
            low, high = bca_interval(values.mean(), resampled, skew, level=1 - 1.1 * p)
            assert low > 0 or high < 0, "a slightly lower level leaves 0 out"
            low, high = bca_interval(values.mean(), resampled, skew, level=1 - p / 1.1)
            assert low < 0 < high, "a slightly higher one does not"
            seen += 1
    assert seen > 15


def test_p_without_bias_and_skewness_counts_both_sides():
    resampled = np.concatenate([np.linspace(-0.5, -0.1, 9), np.linspace(0.1, 4, 990), [1.5]])
    value = float(np.median(resampled))
    assert bca_p(value, resampled, 0.0) == pytest.approx(2 * 10 / 1001, rel=0.02)
    assert bca_p(-value, -resampled, 0.0) == pytest.approx(bca_p(value, resampled, 0.0), rel=1e-9)
    assert bca_p(5.0, np.full(999, 5.0), 0.0) == pytest.approx(2 / 1000), "never 0"
    assert bca_p(0.0, np.zeros(999), 0.0) == 1.0


def test_far_ends_do_not_pass_the_pole():
    resampled = np.arange(1.0, 1001.0)
    assert bca_p(1000.0, resampled, 1 / 6) == 2 / 1001
    assert bca_interval(1000.0, resampled, 1 / 6, level=0.999)[1] == 1000.0


# ---- two levels ------------------------------------------------------------------------------------------------------


def every_resample(a: np.ndarray, b: np.ndarray, same_seeds: bool) -> np.ndarray:
    """The difference in each of the equally likely draws of seeds and of problems."""

    def draws(n):
        return [list(draw) for draw in itertools.product(range(n), repeat=n)]

    seeds = [(d, d) for d in draws(len(a))] if same_seeds else list(itertools.product(draws(len(a)), draws(len(b))))
    return np.array(
        [a[x][:, w].mean() - b[y][:, w].mean() for (x, y), w in itertools.product(seeds, draws(a.shape[1]))]
    )


@pytest.mark.parametrize("same_seeds", [True, False])
def test_resamples_have_the_distribution_of_all_of_them(same_seeds, monkeypatch):
    seen = []
    monkeypatch.setattr(two_level, "bca_p", lambda value, resampled, skew: seen.append(resampled) or 0.5)
    two_level_difference([(A, B)], same_seeds, resamples=100_000)
    exact, ours = np.sort(every_resample(A, B, same_seeds)), np.sort(seen[0])
    assert len(exact) == (4 if same_seeds else 16) * 27
    # Kolmogorov's distance; its 99.99 % point for 100000 draws is 2.2 / sqrt(100000) = 0.007.
    grid = np.unique(exact) + 1e-9
    distance = np.abs(np.searchsorted(ours, grid) / len(ours) - np.searchsorted(exact, grid) / len(exact)).max()
    assert distance < 0.007


@pytest.mark.parametrize("same_seeds", [True, False])
def test_the_interval_is_bca_of_all_resamples(same_seeds):
    exact = every_resample(A, B, same_seeds)
    value = A.mean() - B.mean()
    by_problem = [np.delete(A, i, 1).mean() - np.delete(B, i, 1).mean() for i in range(3)]
    of_a, of_b = ([np.delete(x, i, 0).mean() for i in range(2)] for x in (A, B))
    both = [x - y for x, y in zip(of_a, of_b, strict=True)]
    by_seed = [both] if same_seeds else [[x - B.mean() for x in of_a], [A.mean() - y for y in of_b]]
    skew = acceleration([*map(np.array, by_seed), np.array(by_problem)])
    low, high = bca_interval(value, exact, skew)
    found = two_level_difference([(A, B)], same_seeds, resamples=100_000)
    assert found.value == pytest.approx(value) == pytest.approx(0.2 / 6)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.012)
    assert found.p == pytest.approx(bca_p(value, np.repeat(exact, 200), skew), abs=0.02)


def pigeonhole_variance(a: np.ndarray, b: np.ndarray, same_seeds: bool) -> float:
    """Exact variance over all draws: sums of squares of seeds, problems and what is left of each method's table."""

    def parts(x):
        centred = x - x.mean()
        rows, columns = centred.mean(1), centred.mean(0)
        return rows, columns, centred - rows[:, None] - columns

    if same_seeds:
        rows, columns, rest = parts(a - b)
        return (rows**2).sum() / len(a) ** 2 + (columns**2).sum() / a.shape[1] ** 2 + (rest**2).sum() / a.size**2
    (row_a, column_a, rest_a), (row_b, column_b, rest_b) = parts(a), parts(b)
    problems = ((column_a - column_b) ** 2).sum() / a.shape[1] ** 2
    own = sum((rows**2).sum() / len(rows) ** 2 + (rest**2).sum() / rest.size**2
              for rows, rest in ((row_a, rest_a), (row_b, rest_b)))  # fmt: skip
    return problems + own


@pytest.mark.parametrize(("seeds", "same_seeds"), [((4, 4), True), ((4, 4), False), ((2, 5), False)])
def test_the_variance_is_the_closed_form(seeds, same_seeds, monkeypatch):
    rng = np.random.default_rng(11)
    problems = rng.random(40)
    a, b = (problems + rng.normal(0, 0.1, (n, 1)) + rng.normal(0, 0.2, (n, 40)) for n in seeds)
    if not same_seeds and seeds[0] == 4:  # the closed form itself, on all resamples of a small table
        assert pigeonhole_variance(A, B, False) == pytest.approx(every_resample(A, B, False).var(), rel=1e-12)
        assert pigeonhole_variance(A, B, True) == pytest.approx(every_resample(A, B, True).var(), rel=1e-12)
    seen = []
    monkeypatch.setattr(two_level, "bca_p", lambda value, resampled, skew: seen.append(resampled) or 0.5)
    two_level_difference([(a, b)], same_seeds, resamples=40_000)
    assert seen[0].var() == pytest.approx(pigeonhole_variance(a, b, same_seeds), rel=0.03)  # four standard errors


def test_sharing_seeds_takes_out_what_they_have_in_common():
    """A seed that moves both methods alike does not widen the paired interval."""
    common = np.array([[0.0], [0.3], [0.6]])
    a, b = common + np.linspace(0.1, 0.4, 20), common + np.linspace(0.05, 0.3, 20)
    paired, apart = two_level_difference([(a, b)], True), two_level_difference([(a, b)], False)
    assert paired.high - paired.low < 0.05 and paired.p < 0.001
    assert apart.high - apart.low > 0.5 and apart.p > 0.3
    assert (paired.value, apart.value) == pytest.approx((0.075, 0.075))


def test_the_spread_between_trainings_widens_the_interval():
    """Two pairs of trainings that differ by luck: over problems alone a difference is found, over seeds none."""
    a = np.full((3, 50), 0.5) + np.array([[0.15], [0.0], [-0.03]])
    b = np.full((3, 50), 0.5) + np.array([[-0.03], [0.04], [0.0]])
    a += np.linspace(-0.05, 0.05, 50)
    assert paired_bootstrap((a.mean(0), b.mean(0))).p < 0.001
    found = two_level_difference([(a, b)], False)
    assert found.low < 0 < found.high and found.p > 0.2


def test_equal_values_have_an_interval_without_width():
    same = np.full((3, 5), 0.25)
    assert two_level_difference([(same, same)], True) == Difference(0.0, 0.0, 0.0, 1.0)
    found = two_level_difference([(same + 0.5, same)], False, resamples=999)
    assert (found.value, found.low, found.high, found.p) == pytest.approx((0.5, 0.5, 0.5, 2 / 1000))


def test_a_single_seed_or_problem_has_no_interval():
    one = two_level_difference([(np.array([[0.5, 1.0]]), np.array([[0.0, 1.0]]))], True)
    assert one == Difference(0.25, None, None, None)
    assert two_level_difference([(A, B[:1])], False).p is None
    assert two_level_difference([(A[:, :1], B[:, :1])], True) == Difference(pytest.approx(0.1), None, None, None)


def test_benchmarks_count_alike_and_share_their_seeds():
    """The same trainings are drawn for both benchmarks: two copies of one have its spread over seeds, not less."""
    seeds = np.array([[0.0], [0.2], [0.4], [0.6]])
    a, b = seeds + np.zeros((4, 30)), np.zeros((4, 30))
    once = two_level_difference([(a, b)], True)
    twice = two_level_difference([(a, b), (a, b)], True)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=1e-12)
    small = two_level_difference([(a, b), (a[:, :3] + 1, b[:, :3])], True)
    assert small.value == pytest.approx(0.8), "the mean of 0.3 and 1.3, whatever the number of problems"


def test_draws_do_not_depend_on_the_chunk(monkeypatch):
    whole = two_level_difference([(A, B)], False, resamples=500)
    monkeypatch.setattr(two_level, "CHUNK", 21)
    assert two_level_difference([(A, B)], False, resamples=500) == whole


def test_swapping_the_methods_turns_the_difference_round():
    rng = np.random.default_rng(5)
    a, b = rng.random((3, 12)), rng.random((3, 12))
    found, turned = two_level_difference([(a, b)], True), two_level_difference([(b, a)], True)
    assert (turned.value, turned.low, turned.high, turned.p) == pytest.approx(
        (-found.value, -found.high, -found.low, found.p), abs=1e-9
    )


@pytest.mark.parametrize(
    ("a", "b", "same_seeds", "words"),
    [
        (A, B[:, :2], False, r"\(2, 3\) and \(2, 2\) cannot be paired by problem"),
        (A, B[:1], True, "2 and 1 seeds, where 2 and 1 were expected"),
        (A, np.where(B == 0, math.nan, B), False, "all values must be finite"),
        (A[0], B[0], False, "cannot be paired by problem"),
    ],
)
def test_tables_that_do_not_fit(a, b, same_seeds, words):
    with pytest.raises(ValueError, match=words):
        two_level_difference([(a, b)], same_seeds)
    with pytest.raises(ValueError, match="3 and 2 seeds, where 2 and 2 were expected"):
        two_level_difference([(A, B), (np.zeros((3, 3)), B)], False)
