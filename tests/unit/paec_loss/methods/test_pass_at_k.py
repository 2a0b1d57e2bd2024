"""Pass@k training: the vectors, both estimators by counting all sets of k responses, what has no advantage."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest
import torch
from batches import assert_by_group, assert_six_digits, rollouts_of

from paec_loss.methods.pass_at_k import PassAtK


def of_eight(right: int, **fields) -> torch.Tensor:
    """[8] advantages of a group whose first responses are right."""
    rollouts = rollouts_of([1.0] * right + [0.0] * (8 - right), [0] * 8, [[-1.0]] * 8)
    return PassAtK(**fields).advantages(rollouts)[:, 0]


@pytest.mark.parametrize(
    ("right", "k", "of_right", "of_wrong"),
    [
        (2, 4, 0.522232, -0.174077),
        (2, 1, 1.732047, -0.577349),  # GRPO with the population deviation
        (6, 4, 0.0, 0.0),  # four responses always have a right one
        (0, 4, 0.0, 0.0),
        (8, 4, 0.0, 0.0),
        (3, 8, 0.0, 0.0),  # k = G
    ],
)
def test_equals_values_computed_by_hand(right, k, of_right, of_wrong):
    assert_six_digits(of_eight(right, k=k), [of_right] * right + [of_wrong] * (8 - right))


def test_unbiased_by_hand():
    """Rewards 0.5 and 0.357143; baselines 4/7 rho(7, 1, 4) = 16/49 and 4/7 rho(7, 2, 4) = 24/49."""
    expected = [0.5 - 16 / 49] * 2 + [0.5 * 5 / 7 - 24 / 49] * 6
    torch.testing.assert_close(
        of_eight(2, estimator="unbiased"), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )
    assert 0.5 * 5 / 7 == pytest.approx(0.357143, abs=5e-7)


def standardized(rewards: list[float], k: int) -> list[float]:
    """A response's mean over all sets of k that hold it, of the sets' standardised pass@k."""
    sets = list(combinations(range(len(rewards)), k))
    passed = [float(any(rewards[i] > 0 for i in members)) for members in sets]
    mean = fmean(passed)
    deviation = fmean((value - mean) ** 2 for value in passed) ** 0.5
    own = [[value for members, value in zip(sets, passed, strict=True) if i in members] for i in range(len(rewards))]
    return [fmean((value - mean) / (deviation + 1e-6) for value in values) for values in own]


def unbiased(rewards: list[float], k: int) -> list[float]:
    """PKPO's s_i, the mean over all sets of [i in the set] max R, minus the mean s_j of the others without i."""

    def scores(members: list[int]) -> dict[int, float]:
        sets = list(combinations(members, k))
        best = [max(rewards[i] for i in chosen) for chosen in sets]
        return {
            i: sum(value for chosen, value in zip(sets, best, strict=True) if i in chosen) / len(sets) for i in members
        }

    everyone = list(range(len(rewards)))
    whole = scores(everyone)
    return [whole[i] - fmean(scores([j for j in everyone if j != i]).values()) for i in everyone]


@pytest.mark.parametrize(("estimator", "by_counting"), [("standardized", standardized), ("unbiased", unbiased)])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_against_all_sets(estimator, by_counting, k):
    for n in (5, 6, 7):
        for right in range(n + 1):
            rewards = [1.0] * right + [0.0] * (n - right)
            rollouts = rollouts_of(rewards, [0] * n, [[-1.0, -1.0]] * n)
            got = PassAtK(k=k, estimator=estimator).advantages(rollouts)
            assert got[:, 0].tolist() == pytest.approx(by_counting(rewards, k), rel=1e-9, abs=1e-12)
            assert torch.equal(got[:, 0], got[:, 1])


def test_a_reward_above_zero_is_right():
    rollouts = rollouts_of([0.5, -1.0, 0.0, 1.0], [0] * 4, [[-1.0]] * 4)
    binary = rollouts_of([1.0, 0.0, 0.0, 1.0], [0] * 4, [[-1.0]] * 4)
    got = PassAtK(k=2).advantages(rollouts)
    assert torch.equal(got, PassAtK(k=2).advantages(binary)) and got[0, 0] > 0 > got[1, 0]


@pytest.mark.parametrize("estimator", ["standardized", "unbiased"])
def test_every_group_by_itself(estimator):
    assert_by_group(PassAtK(k=1, estimator=estimator))


def test_too_few_responses():
    """A prompt with fewer has no advantage; where no prompt has enough, it is an error."""
    rollouts = rollouts_of([1.0, 0.0, 0.0, 1.0, 0.0, 1.0], [0, 0, 0, 1, 1, 0], [[-1.0]] * 5 + [[]])
    got = PassAtK(k=2, estimator="unbiased").advantages(rollouts)[:, 0]
    assert got[:3].abs().min() > 0 and got[3:].abs().max() == 0
    assert PassAtK(k=3).advantages(rollouts).abs().max() == 0
    with pytest.raises(ValueError, match=r"method.k=4: no prompt has 4 responses, which it needs: lower it, or draw"):
        PassAtK(k=4).advantages(rollouts)
    with pytest.raises(ValueError, match=r"method.k=3: no prompt has 4 responses"):
        PassAtK(k=3, estimator="unbiased").advantages(rollouts)


@pytest.mark.parametrize("field, value", [("k", 0), ("k", 1.5), ("estimator", "best")])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        PassAtK(**{field: value})
