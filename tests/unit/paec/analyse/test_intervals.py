"""Bootstrap intervals of statistics over problems."""

from itertools import product

import numpy as np
import pytest

from recipe.paec.analyse.intervals import RESAMPLES, divided, interval, intervals, mean, number, shown


def ratio(means):
    return divided(means[..., :1], means[..., 1:])


def test_percentiles_of_all_resamples():
    """Three problems have 27 equally likely resamples; the interval's ends are those of their distribution."""
    values = np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 5.0]])
    every = [values[list(rows)].sum(0) for rows in product(range(3), repeat=3)]
    ratios = sorted(a / b for a, b in every)
    (found,) = intervals(values, ratio)
    assert found["value"] == pytest.approx(14 / 11)
    assert found["low"] == pytest.approx(ratios[0]) == 0.5  # 1/27 of the mass is more than 2.5 %
    assert found["high"] == pytest.approx(ratios[-1]) == 2.0


def test_they_are_seeded():
    values = np.random.default_rng(1).normal(size=(20, 2)) + 5
    assert intervals(values, ratio) == intervals(values, ratio)


def test_a_single_problem_has_no_interval():
    assert mean(np.array([0.25])) == {"value": 0.25, "low": None, "high": None}


def test_a_statistic_that_is_often_undefined_has_no_interval():
    # 0/0 in 8 of 27 resamples of three problems, and in (2/3)^20 of those of twenty.
    assert intervals([[0, 0], [0, 0], [1, 2]], ratio) == [{"value": 0.5, "low": None, "high": None}]
    many = np.array([[0, 0]] * 14 + [[1, 2]] * 6)
    assert intervals(many, ratio) == [{"value": 0.5, "low": 0.5, "high": 0.5}]
    assert intervals([[0, 0], [0, 0]], ratio) == [{"value": None, "low": None, "high": None}]


def test_undefined_resamples_are_left_out():
    drawn = np.r_[np.full(40, np.nan), np.linspace(0, 1, 960)]
    assert interval(0.5, drawn)["high"] == pytest.approx(0.975)
    assert interval(0.5, np.r_[np.full(60, np.nan), np.linspace(0, 1, 940)])["high"] is None


def test_division():
    np.testing.assert_array_equal(divided([1, 0, 2], [2, 0, 0]), [0.5, np.nan, np.nan])


def test_an_interval_as_text():
    assert shown({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500 [0.250, 0.750]"
    assert shown({"value": 0.5, "low": None, "high": None}, ".1f") == "0.5"
    assert shown({"value": None, "low": None, "high": None}) == shown(None) == number(None) == "-"
    assert number(0.04321, ".2g") == "0.043"


def test_the_mean_has_the_interval_of_scores():
    from recipe.paec.scoring.estimators import bootstrap_interval, resampled_means

    values = np.random.default_rng(0).random(30)
    found, theirs = mean(values), bootstrap_interval(values)
    assert found["value"] == pytest.approx(theirs.value)
    assert found["low"] == pytest.approx(np.quantile(resampled_means(values, RESAMPLES, 0), 0.025))
    assert found["low"] == pytest.approx(theirs.low, abs=0.01)  # from other draws
