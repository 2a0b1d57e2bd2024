"""Difficulty bins, against every half of the samples."""

from itertools import combinations

import numpy as np
import pytest
from analysed import answered, counted, pair

from recipe.paec.analyse.answers import answer_entropy
from recipe.paec.analyse.difficulty import BINS, analyse, bin_of, halves, of_bins, same_samples, table
from recipe.paec.common.errors import UserError


def test_the_bins():
    np.testing.assert_array_equal(bin_of([0, 0.099, 0.1, 0.3, 0.7, 0.95, 1]), [0, 0, 1, 3, 7, 9, 9])
    assert [bin_of(i / 10) for i in range(11)] == [*range(10), 9]


@pytest.mark.parametrize(("samples", "correct"), [(2, 1), (4, 0), (4, 3), (5, 2), (8, 5)])
def test_halves_against_every_choice(samples, correct):
    verdicts = [True] * correct + [False] * (samples - correct)
    expected, choices = np.zeros((BINS, 2)), list(combinations(range(samples), samples // 2))
    for chosen in choices:
        first = [verdicts[i] for i in chosen]
        second = [verdicts[i] for i in range(samples) if i not in chosen]
        expected[bin_of(np.mean(first))] += 1, np.mean(second)
    np.testing.assert_allclose(halves(samples, correct), expected / len(choices), atol=1e-12)


def test_a_pair_by_hand():
    # The base has 1 of 2: in half of the cases it is in bin 9 with 0 on the other sample, else in bin 0 with 1.
    found = analyse(pair(counted(1, n=2), counted(3)))
    low, high = found["bins"]
    assert (low["low"], high["high"], low["problems"], high["problems"]) == (0.0, 1.0, 0.5, 0.5)
    assert low["base"]["value"] == 1 and high["base"]["value"] == 0 and low["trained"]["value"] == 0.75
    assert low["change"]["value"] == -0.25 and high["change"]["value"] == 0.75
    assert low["same_samples"] is None and low["base_answers"] is None


def test_all_weights_together_are_the_problems():
    values = of_bins(pair(counted(0, 1, 2, 3, 4), counted(4, 3, 2, 1, 0)).problems)
    np.testing.assert_allclose(values[:, :, 0].sum(1), 1)
    np.testing.assert_allclose(values[:, :, 1].sum(1), np.arange(5) / 4)
    np.testing.assert_allclose(values[:, :, 2].sum(1), 1 - np.arange(5) / 4)


def test_the_same_policy_changes_nowhere():
    """Unlike where the same samples choose the bin and are compared, which invents a change at both ends."""
    random = np.random.default_rng(0)
    rates = random.random(3000)
    problems = pair(*(counted(*random.binomial(8, rates), n=8) for _ in range(2)))
    bins = analyse(problems)["bins"]
    assert len(bins) == 5  # 0, 1/4, ..., 1
    for row in bins:
        assert row["change"]["low"] - 0.01 < 0 < row["change"]["high"] + 0.01
    biased = same_samples(problems.problems)
    assert biased[0] > 0.05 and biased[-1] < -0.05


def test_answers_by_bin():
    base, trained = answered("aabb", "AABC"), answered("aaaa", "ABCd")
    (low, *_, high) = analyse(pair(base, trained))["bins"]
    assert low["base_answers"]["value"] == pytest.approx(answer_entropy([0, 0, 1, 1]))
    assert low["trained_answers"]["value"] == 0
    assert high["trained_answers"]["value"] == pytest.approx(answer_entropy([0, 1, 2, 3]))
    assert "answer entropy, base" in table([analyse(pair(base, trained))])


def test_answer_entropies_of_unequal_samples_are_not_compared():
    """Eight samples have up to ln 8 nats, two up to ln 2: a fall out of nothing."""
    found = analyse(pair(answered("abcdefgh"), answered("ab")))["bins"]
    assert [(row["base_answers"], row["trained_answers"]) for row in found] == [(None, None)]
    assert found[0]["trained"]["value"] == 0


def test_one_sample_cannot_be_halved():
    with pytest.raises(UserError, match="difficulty: needs two samples of a problem"):
        analyse(pair(counted(1, 0, n=1), counted(1, 2)))


def test_the_table():
    text = table([analyse(pair(counted(0, 4), counted(2, 4)))])
    assert len(text.splitlines()) == 4 and "answer entropy" not in text
    assert "0.0 - 0.1" in text and "0.9 - 1.0" in text
