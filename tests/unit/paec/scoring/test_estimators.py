"""The estimators against closed forms, enumeration of all subsets and all resamples, and simulated coverage."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from recipe.paec.scoring import estimators
from recipe.paec.scoring.estimators import (
    Estimate,
    average,
    bootstrap_interval,
    bootstrap_intervals,
    inconsistent_groups,
    maj_at_k,
    majority,
    paired_bootstrap,
    pass_at_every_k,
    pass_at_k,
    powers_of_two,
    resampled_means,
    student_quantile,
    t_interval,
)


def test_average():
    assert average([True, False, False, True]) == 0.5
    assert average([False]) == 0.0
    with pytest.raises(ValueError, match="the average of zero samples is undefined"):
        average([])


# ---- pass@k ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_all_subsets(n):
    for c in range(n + 1):
        correct = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(correct, k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


@pytest.mark.parametrize("c", [0, 1, 2, 37, 2048, 4095, 4096])
def test_pass_at_k_of_many_samples_is_the_exact_ratio(c):
    n = 4096
    ours = pass_at_every_k(n, c)
    assert ours.shape == (n,) and np.all(np.diff(ours) >= 0)
    for k in (1, 2, 31, 1024, 4000, 4095, 4096):
        exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
        assert ours[k - 1] == pytest.approx(float(exact), abs=1e-12)


def test_pass_at_1_is_the_average_and_pass_at_n_whether_any_is_correct():
    for n in (1, 3, 32):
        for c in range(n + 1):
            assert pass_at_k(n, c, 1) == pytest.approx(c / n, abs=1e-15)
            assert pass_at_k(n, c, n) == float(c > 0)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (0, 0, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_refuses_what_is_not_defined(n, c, k):
    with pytest.raises(ValueError, match=r"of \d samples"):
        pass_at_k(n, c, k)


# ---- majority --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "correct", "wins"),
    [
        ([0, 1, 1], [True, False, False], False),
        ([0, 1, 1], [False, True, True], True),
        ([0, 1, 0, 1], [True, False, True, False], True),  # a tie: 0 came first
        ([1, 0, 0, 1], [True, False, False, True], True),  # a tie: 1 came first, its number says nothing
        ([1, 0, 0, 1, 0], [True, False, False, True, False], False),
        ([None, None, None, 0], [False, False, False, True], True),  # no answer, no vote
        ([None, 2, 0, 0], [False, True, False, False], False),
        ([None, None], [False, False], False),
        ([None], [True], False),
        ([0], [True], True),
        ([0, 0, 0], [True, False, False], True),  # contradictory verdicts: the first counts
        ([0, 0, 0], [False, True, True], False),
        ([], [], False),
    ],
)
def test_majority(groups, correct, wins):
    assert majority(groups, correct) is wins


def test_majority_takes_numpy_and_refuses_unequal_lengths():
    assert majority(np.array([0, 1, 1]), np.array([False, True, True])) is True
    with pytest.raises(ValueError, match="2 groups of 1 samples"):
        majority([0, 1], [True])


def test_maj_at_k_means_over_blocks():
    groups, correct = [0, 1, 1, 0, 0, None, 2], [True, False, False, True, True, False, False]
    # Blocks of 2: (0 1) a tie, 0 first: right; (1 0) a tie, 1 first: wrong; (0 -): right. The seventh is left out.
    assert maj_at_k(groups, correct, 2) == pytest.approx(2 / 3)
    assert maj_at_k(groups, correct, 3) == 0.5  # (0 1 1) wrong, (0 0 -) right
    assert maj_at_k(groups, correct, 7) == 1.0  # 0 has three votes, 1 two
    assert maj_at_k(groups, correct, 1) == average(correct)
    for k in (0, 8):
        with pytest.raises(ValueError, match=f"maj@{k} of 7"):
            maj_at_k(groups, correct, k)


def test_maj_at_k_is_unbiased():
    # Answers right, wrong a, wrong b with 0.4, 0.35, 0.25: maj@3 by enumeration of three ordered samples.
    shares = {0: 0.4, 1: 0.35, 2: 0.25}
    exact = sum(
        math.prod(shares[g] for g in draw) * majority(draw, [g == 0 for g in draw])
        for draw in itertools.product(shares, repeat=3)
    )
    rng = np.random.default_rng(0)
    estimates = []
    for draw in rng.choice(3, p=list(shares.values()), size=(2000, 12)):
        estimates.append(maj_at_k(list(draw), list(draw == 0), 3))
    assert np.mean(estimates) == pytest.approx(exact, abs=4 * np.std(estimates) / math.sqrt(2000))
    assert abs(exact - 0.4) > 0.015  # so a mere average would be found out


def test_inconsistent_groups():
    assert inconsistent_groups([0, 0, 1, 1, None, None], [True, True, False, False, True, False]) == 0
    assert inconsistent_groups([0, 0, 0, 1, 1], [True, False, True, False, True]) == 2
    assert inconsistent_groups([], []) == 0


@pytest.mark.parametrize(
    ("n", "ks"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_powers_of_two(n, ks):
    assert powers_of_two(n) == ks


# ---- the bootstrap ---------------------------------------------------------------------------------------------------


def all_resamples(values):
    return [np.mean(draw) for draw in itertools.product(values, repeat=len(values))]


def test_resampled_means_have_the_distribution_of_all_resamples():
    values = [0.0, 0.1, 0.5, 1.0]
    exact = np.sort(all_resamples(values))
    ours = np.sort(resampled_means(np.array(values), 100_000, 3))
    # Kolmogorov's distance; its 99.99 % point for 100000 draws is 2.2 / sqrt(100000) = 0.007.
    grid = np.unique(exact) + 1e-9
    distance = np.abs(np.searchsorted(ours, grid) / len(ours) - np.searchsorted(exact, grid) / len(exact)).max()
    assert distance < 0.007


def test_interval_is_the_quantiles_of_all_resamples():
    values = [0.0, 0.0, 0.2, 0.6, 1.0]
    low, high = np.quantile(all_resamples(values), [0.025, 0.975])
    ours = bootstrap_interval(values, resamples=50_000)
    assert ours.value == pytest.approx(0.36)
    assert (ours.low, ours.high) == (pytest.approx(low, abs=0.011), pytest.approx(high, abs=0.011))
    assert ours.low < ours.value < ours.high


def test_draws_do_not_depend_on_the_chunk(monkeypatch):
    values = np.random.default_rng(1).random((6, 3))
    whole = resampled_means(values, 100, 5)
    monkeypatch.setattr(estimators, "CHUNK", 42)
    np.testing.assert_allclose(resampled_means(values, 100, 5), whole, atol=1e-15)


def test_columns_share_their_draws_and_agree_with_the_single_interval(monkeypatch):
    monkeypatch.setattr(estimators, "COLUMNS", 2)
    values = np.random.default_rng(2).random((9, 5))
    values[:, 4] = 1 - values[:, 3]
    together = bootstrap_intervals(values, resamples=500)
    assert len(together) == 5
    for column, joint in zip(values.T, together, strict=True):
        alone = bootstrap_interval(column, resamples=500)
        assert (joint.value, joint.low, joint.high) == pytest.approx((alone.value, alone.low, alone.high), abs=1e-12)
    assert together[4].low == pytest.approx(1 - together[3].high, abs=1e-12)


def test_one_problem_has_no_interval():
    assert bootstrap_interval([0.25]) == Estimate(0.25, None, None)
    assert bootstrap_intervals(np.array([[0.25, 1.0]])) == [Estimate(0.25, None, None), Estimate(1.0, None, None)]
    assert bootstrap_interval([0.0, 1.0], [0.5]) == Estimate(0.5, None, None)
    assert paired_bootstrap(([0.5], [0.25])) == estimators.Difference(0.25, None, None, None)
    assert t_interval([0.5]) == Estimate(0.5, None, None)


def test_equal_values_have_an_interval_without_width():
    for value in (0.0, 1.0):
        assert bootstrap_interval([value] * 30) == Estimate(value, value, value)


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf, 0.0]])
def test_values_must_be_there_and_finite(values):
    for estimator in (bootstrap_interval, t_interval):
        with pytest.raises(ValueError, match="at least one value, and all values must be finite"):
            estimator(values)


def test_benchmarks_count_alike_and_are_resampled_by_themselves():
    small, large = [0.0, 1.0] * 5, [0.0, 1.0] * 50
    both = bootstrap_interval(small, large, resamples=20_000)
    assert both.value == 0.5
    # Standard deviations of the means: 0.5 / sqrt(P); of half their sum, independent: 0.0829.
    deviation = 0.5 * math.hypot(0.5 / math.sqrt(10), 0.5 / math.sqrt(100))
    assert (both.high - both.low) / 2 == pytest.approx(1.96 * deviation, rel=0.04)
    # Of one size, and resampled in step, the interval would be wider by the root of two.
    twice = bootstrap_interval(large, large, resamples=20_000)
    assert (twice.high - twice.low) / 2 == pytest.approx(1.96 * 0.05 / math.sqrt(2), rel=0.06)


@pytest.mark.parametrize(("problems", "least", "most"), [(10, 0.84, 0.91), (30, 0.91, 0.96), (60, 0.92, 0.97)])
def test_interval_covers_the_mean_less_often_with_few_problems(problems, least, most):
    # Benchmarks like AIME: 32 samples a problem, most problems nearly never solved, mean 0.2.
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(1000):
        values = rng.binomial(32, rng.beta(0.3, 1.2, size=problems)) / 32
        interval = bootstrap_interval(values, resamples=1000, seed=trial)
        covered += interval.low <= 0.2 <= interval.high
    print(f"{problems} problems: the interval covered the mean in {covered} of 1000")
    assert least <= covered / 1000 <= most


# ---- paired ----------------------------------------------------------------------------------------------------------


def test_paired_difference_by_enumeration():
    a, b = [1.0, 0.5, 0.5, 0.0, 1.0], [0.0, 0.5, 0.25, 0.5, 0.0]
    means = np.array(all_resamples(np.subtract(a, b)))
    p = 2 * min(np.mean(means <= 0), np.mean(means >= 0))
    ours = paired_bootstrap((a, b), resamples=50_000)
    assert ours.value == pytest.approx(0.35)
    assert ours.p == pytest.approx(p, abs=0.01) and 0.1 < p < 0.4
    assert ours.low == pytest.approx(np.quantile(means, 0.025), abs=0.011)
    assert ours.high == pytest.approx(np.quantile(means, 0.975), abs=0.011)


def test_swapping_the_methods_turns_the_difference_round():
    rng = np.random.default_rng(5)
    a, b = rng.random(20), rng.random(20)
    there, back = paired_bootstrap((a, b), resamples=999), paired_bootstrap((b, a), resamples=999)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low), abs=1e-12)
    assert back.p == there.p


def test_p_is_never_zero_and_one_where_nothing_differs():
    always = paired_bootstrap(([1.0] * 30, [0.0] * 30), resamples=999)
    assert always == estimators.Difference(1.0, 1.0, 1.0, 2 / 1000)
    assert paired_bootstrap(([0.3] * 30, [0.3] * 30)).p == 1.0
    # 0.1 + 0.2 - 0.3 is not 0 in floats; it is a tie all the same.
    assert paired_bootstrap(([0.1 + 0.2] * 30, [0.3] * 30)).p == 1.0


def test_p_goes_with_the_interval():
    rng = np.random.default_rng(6)
    seen = set()
    for shift in np.linspace(0, 0.5, 40):
        found = paired_bootstrap((rng.normal(shift, 1, size=50), np.zeros(50)), resamples=2000)
        if abs(found.p - 0.05) > 0.003:
            assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
            seen.add(found.p < 0.05)
    assert seen == {True, False}


def test_p_is_below_five_percent_five_percent_of_the_time():
    # Majorities of two equal methods on 30 problems: most pairs are ties.
    rng = np.random.default_rng(2)
    below = 0
    for trial in range(1000):
        chance = rng.beta(0.3, 0.9, size=30)
        a, b = rng.random((2, 30)) < chance
        below += paired_bootstrap((a, b), resamples=1000, seed=trial).p < 0.05
    print(f"p < 0.05 in {below} of 1000 pairs of equal methods")
    assert 0.02 <= below / 1000 <= 0.07


def test_pairing_needs_the_same_problems():
    with pytest.raises(ValueError, match="2 and 3 problems cannot be paired"):
        paired_bootstrap(([0.0, 1.0], [0.0, 1.0, 1.0]))


def test_paired_over_several_benchmarks():
    found = paired_bootstrap(([1.0, 1.0], [0.0, 0.0]), ([0.5, 0.5, 0.5], [0.0, 0.0, 0.0]))
    assert (found.value, found.low, found.high) == (0.75, 0.75, 0.75)


# ---- Student's t -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # tables of Student's distribution, 97.5 %
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (30, 2.0423), (120, 1.9799)],
)
def test_student_quantile_is_the_tables(freedom, quantile):
    assert student_quantile(0.95, freedom) == pytest.approx(quantile, abs=5e-5)


def test_student_quantile_in_closed_form():
    for level in (0.5, 0.9, 0.99):
        assert student_quantile(level, 1) == pytest.approx(math.tan(math.pi * level / 2), rel=1e-12)  # Cauchy
        assert student_quantile(level, 2) == pytest.approx(level * math.sqrt(2 / (1 - level**2)), rel=1e-12)
    for level, freedom in [(0.0, 3), (1.0, 3), (0.95, 0)]:
        with pytest.raises(ValueError, match="no quantile"):
            student_quantile(level, freedom)


def test_t_interval_by_hand():
    found = t_interval([0.40, 0.46, 0.43])
    half = 4.302653 * 0.03 / math.sqrt(3)  # their standard deviation is 0.03
    assert (found.value, found.low, found.high) == pytest.approx((0.43, 0.43 - half, 0.43 + half), abs=1e-7)


def test_t_interval_covers_the_mean():
    rng = np.random.default_rng(8)
    intervals = [t_interval(rng.normal(0.4, 0.02, size=3)) for _ in range(2000)]
    covered = sum(found.low <= 0.4 <= found.high for found in intervals)
    print(f"three seeds: the t interval covered the mean in {covered} of 2000")
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)
