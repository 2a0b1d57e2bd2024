"""CANON: both comparisons by hand, length and schedules, odd groups, ties, Dr.GRPO as the middle, silent groups."""

from __future__ import annotations

import math

import pytest
import torch
from batches import random_rollouts, rollouts_of

from paec_loss import MethodStack
from paec_loss.methods import METHODS
from paec_loss.methods.canon import CANON

# Mean entropies 4, 1, 3, 2: the low half is the responses 1 and 3 (rewards 0, 1), the high one 0 and 2 (1, 1).
ENTROPY = [[5.0, 3.0], [1.0], [3.0, 3.0], [2.0]]
LOG_PROB = [[-1.0] * len(row) for row in ENTROPY]
REWARDS = [1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "mu, expected",
    [
        (1.0, [0.5, -1.0, 0.5, 0.0]),  # against the other half: means 1/2 for the high, 1 for the low
        (0.0, [0.0, -0.5, 0.0, 0.5]),  # against the own half
        (0.5, [0.25, -0.75, 0.25, 0.25]),  # R - 3/4: Dr.GRPO
    ],
)
def test_equals_values_computed_by_hand(mu, expected):
    rollouts = rollouts_of(REWARDS, [0] * 4, LOG_PROB, entropy=ENTROPY)
    got = CANON(mu=mu).advantages(rollouts)
    torch.testing.assert_close(got[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0)
    assert got[:, 1].tolist() == [expected[0], 0, expected[2], 0]


def test_an_odd_group_has_the_larger_half_above():
    rollouts = rollouts_of([1.0, 0.0, 1.0], [0] * 3, [[-1.0]] * 3, entropy=[[3.0], [2.0], [1.0]])
    # low: response 2 (reward 1); high: 1 and 0 (mean reward 1/2)
    assert CANON().advantages(rollouts)[:, 0].tolist() == [0.0, -1.0, 0.5]


def test_a_group_of_two():
    rollouts = rollouts_of([1.0, 0.0], [0] * 2, [[-1.0]] * 2, entropy=[[3.0], [2.0]])
    assert CANON().advantages(rollouts)[:, 0].tolist() == [1.0, -1.0]
    assert CANON(mu=0.0).advantages(rollouts)[:, 0].tolist() == [0.0, 0.0]


def test_equal_entropies_keep_their_order():
    rollouts = rollouts_of([1.0, 0.0, 0.0, 0.0], [0] * 4, [[-1.0]] * 4, entropy=[[1.0]] * 4)
    assert CANON().advantages(rollouts)[:, 0].tolist() == [1.0, 0.0, -0.5, -0.5]


def test_against_the_definition():
    rollouts = random_rollouts()
    got = CANON(mu=0.7).advantages(rollouts)
    assert got.abs().max() > 0
    for i in range(9):
        rows = [j for j in range(9) if rollouts.group_id[j] == rollouts.group_id[i] and rollouts.lengths[j] > 0]
        entropy = {j: rollouts.entropy[j][rollouts.response_mask[j]].mean().item() for j in rows}
        ranked = sorted(rows, key=entropy.get)
        halves = [ranked[: len(rows) // 2], ranked[len(rows) // 2 :]]
        expected = 0.0
        if i in rows and len(rows) > 1:
            own, other = halves if i in halves[0] else halves[::-1]
            mean = {
                name: sum(rollouts.rewards[j].item() for j in half) / len(half)
                for name, half in (("own", own), ("other", other))
            }
            expected = rollouts.rewards[i].item() - 0.7 * mean["other"] - 0.3 * mean["own"]
        for t in range(rollouts.response_mask.shape[1]):
            value = expected if rollouts.response_mask[i, t] else 0.0
            assert got[i, t].item() == pytest.approx(value, rel=1e-12, abs=1e-15)


def test_by_length():
    """Lengths 1, 4, 2, 3: the short half is 0 and 2 (rewards 1, 0), the long one 1 and 3 (1, 1), times 0.9."""
    rollouts = rollouts_of([1.0, 1.0, 0.0, 1.0], [0] * 4, [[-1.0] * n for n in (1, 4, 2, 3)])
    got = CANON(metric="length", alpha=0.9).advantages(rollouts)[:, 0]
    torch.testing.assert_close(got, torch.tensor([0.1, 0.4, -0.9, 0.4], dtype=torch.float64), rtol=1e-12, atol=1e-15)
    mixed = CANON(metric="length", alpha=0.9, mu=0.5).advantages(rollouts)[:, 0]
    expected = torch.tensor([0.3, 0.2, -0.7, 0.2], dtype=torch.float64)  # half of it and of 0.5, 0, -0.5, 0
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-15)


def test_equal_lengths_keep_their_order():
    rollouts = rollouts_of([1.0, 0.0, 0.0, 1.0], [0] * 4, [[-1.0] * 2] * 4, entropy=[[9.0 - i] * 2 for i in range(4)])
    assert CANON(metric="length").advantages(rollouts)[:, 0].tolist() == [0.5, -0.5, -0.5, 0.5]


def test_with_entropy_the_low_half_is_discounted():
    """The mirror image of length: low is 1 and 3 (rewards 0, 1), so that R = 0, 0.9 there, and its mean is 0.45."""
    rollouts = rollouts_of(REWARDS, [0] * 4, LOG_PROB, entropy=ENTROPY)
    got = CANON(alpha=0.9).advantages(rollouts)[:, 0]
    expected = torch.tensor([0.55, -1.0, 0.55, -0.1], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


def test_mu_is_the_steps_accuracy():
    """Four of six are right; padding is not counted, and mu has no effect."""
    log_prob = [*LOG_PROB, [-1.0], [-1.0], []]
    rollouts = rollouts_of(
        [*REWARDS, 0.0, 1.0, 0.0], [0] * 4 + [1, 1, 1], log_prob, entropy=[*ENTROPY, [1.0], [2.0], []]
    )
    got = CANON(schedule="accuracy", mu=0.1).advantages(rollouts)
    torch.testing.assert_close(got, CANON(mu=4 / 6).advantages(rollouts), rtol=1e-12, atol=1e-15)


def test_a_mean_reward_that_is_no_accuracy():
    for reward in (-0.65, 1.5):
        rollouts = rollouts_of([reward] * 4, [0] * 4, LOG_PROB, entropy=ENTROPY)
        with pytest.raises(ValueError, match=f"^method.schedule=accuracy: the mean reward of step 3 is {reward}, w"):
            CANON(schedule="accuracy").advantages(rollouts)
        assert CANON().advantages(rollouts).abs().max() == 0


def test_the_accuracy_is_of_right_responses():
    """Beside rewards of other values than 0 and 1 it is refused; ttrl's are 0 and 1."""
    for name in ("entropy_min", "empo", "unlikeliness"):
        with pytest.raises(ValueError, match=f"^canon needs rewards of 1 for right .*, and {name} makes others: leave"):
            MethodStack([CANON(schedule="accuracy"), METHODS[name]()])
        MethodStack([CANON(), METHODS[name]()])
    MethodStack([CANON(schedule="accuracy"), METHODS["ttrl"]()])


@pytest.mark.parametrize(
    ("step", "rest"),
    [
        (1, 0.04),
        (14, 0.3),
        (29, 0.6),  # the warm-up ends
        (30, 0.6),
        (50, 0.3),
        (69, 0.3 * (1 + math.cos(math.pi * 39 / 40))),
        (70, 0.6),  # the second cycle
        (110, 0.6),
        (130, 0.3),
        (150, 0.6),  # published to here; the cycles continue
    ],
)
def test_mu_follows_a_cosine_with_restarts(step, rest):
    rollouts = rollouts_of(REWARDS, [0] * 4, LOG_PROB, entropy=ENTROPY, step=step)
    got = CANON(schedule="cosine").advantages(rollouts)
    torch.testing.assert_close(got, CANON(mu=1 - rest).advantages(rollouts), rtol=1e-12, atol=1e-15)


def test_groups_that_say_nothing():
    rollouts = rollouts_of([1.0, 1.0, 1.0, 1.0], [0, 0, 0, 1], [[-1.0], [-1.0], [], [-1.0]])
    assert CANON(mu=0.3).advantages(rollouts).abs().max() == 0


@pytest.mark.parametrize("value", [-0.1, 1.1, None])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.mu="):
        CANON(mu=value)


@pytest.mark.parametrize("field, value", [("metric", "size"), ("alpha", -0.1), ("schedule", "dynamic")])
def test_options_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        CANON(**{field: value})
