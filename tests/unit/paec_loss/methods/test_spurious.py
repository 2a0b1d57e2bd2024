"""Spurious rewards: each kind by hand, random ones by their statistics, none without any gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import assert_by_group, grpo, random_rollouts, rollouts_of

from paec_loss.methods.spurious import Spurious
from paec_loss.randomness import token_uniform


def of_group(answers: list[int], graded: list[float], kind: str) -> list[float]:
    rollouts = rollouts_of(graded, [0] * len(answers), [[-1.0]] * len(answers), answer_ids=answers)
    return Spurious(kind=kind).rewards(rollouts).tolist()


def test_format_by_hand():
    assert of_group([3, -2, 0, -4], [0.0, 0.0, 1.0, 1.0], "format") == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("answers", "graded", "expected"),
    [
        ([1, 1, 1, 2, 2, 3], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]),  # the right majority does not count
        ([3, 2, 2, 3, 1], [0, 0, 0, 0, 1], [1, 0, 0, 1, 0]),  # a tie: the first
        ([-1, -2, 5], [0, 0, 0], [0, 0, 1]),  # no answer is not the most frequent one
        ([1, 1, 1], [1, 1, 1], [0, 0, 0]),
        ([-1, -2], [0, 0], [0, 0]),
        ([4, 4, 6], [-1, -1, -1], [1, 1, 0]),
    ],
)
def test_incorrect_by_hand(answers, graded, expected):
    assert of_group(answers, [float(r) for r in graded], "incorrect") == expected


def test_none_leaves_no_advantage():
    rollouts = random_rollouts()
    rewards = Spurious(kind="none").rewards(rollouts)
    assert rewards.tolist() == [0.0] * 9 and grpo(rewards, rollouts.group_id).abs().max() == 0


def random_rewards(seed: int, step: int = 3, probability: float = 0.5, groups: int = 250) -> torch.Tensor:
    """[groups, 4] random rewards."""
    rows = 4 * groups
    rollouts = rollouts_of([1.0] * rows, [i // 4 for i in range(rows)], [[-1.0]] * rows, answer_ids=[0] * rows)
    rollouts = replace(rollouts, seed=seed, step=step)
    return Spurious(probability=probability).rewards(rollouts).view(groups, 4)


def test_random_rewards_are_even():
    """Means over 1000 draws within four standard errors, and no correlation within a group or between steps."""
    one, other, later = random_rewards(1), random_rewards(2), random_rewards(1, step=4)
    assert set(one.flatten().tolist()) == {0.0, 1.0}
    assert one.mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)
    assert random_rewards(1, probability=0.1).mean().item() == pytest.approx(0.1, abs=4 * 0.3 / 1000**0.5)
    for a, b in ((one, other), (one, later), (one[:, :2], one[:, 2:]), (one[:-1], one[1:])):
        agreed = (a == b).double()
        assert agreed.mean().item() == pytest.approx(0.5, abs=4 * 0.5 / agreed.numel() ** 0.5)


def test_the_mean_advantage_of_a_response_is_zero():
    """Over 300 seeds, GRPO's advantages of each response of a group: within four standard errors."""
    found = torch.stack([grpo(random_rewards(seed, groups=1)[0], torch.zeros(4)) for seed in range(300)])
    assert found.abs().max() > 0.5
    assert (found.mean(0).abs() < 4 * found.std(0) / 300**0.5).all()


def test_the_draw_is_of_the_place():
    rollouts = rollouts_of([1.0] * 4, [7, 7, 3, 7], [[-1.0]] * 4, answer_ids=[0] * 4)
    draws = token_uniform(1, 3, torch.tensor([7, 7, 3, 7]), 6)
    found = Spurious().rewards(rollouts)
    assert found.tolist() == [float(draws[row, place] < 0.5) for row, place in enumerate([0, 1, 0, 2])]
    found = Spurious().rewards(replace(rollouts, place=torch.tensor([5, 2, 4, 0])))
    assert found.tolist() == [float(draws[row, place] < 0.5) for row, place in enumerate([5, 2, 4, 0])]


@pytest.mark.parametrize("probability", [0, 1])
def test_a_certain_reward(probability):
    assert (random_rewards(1, probability=probability, groups=3) == probability).all()


@pytest.mark.parametrize("kind", ["random", "format", "incorrect"])
def test_every_group_by_itself(kind):
    assert_by_group(Spurious(kind=kind), seed=1)


@pytest.mark.parametrize("field, value", [("kind", "majority"), ("probability", 1.1), ("probability", None)])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        Spurious(**{field: value})
