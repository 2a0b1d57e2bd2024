"""SEED-GRPO: the factor by hand with both weights, its limits, and an independent version."""

from __future__ import annotations

import math

import pytest
import torch
from batches import assert_six_digits, random_rollouts, rollouts_of

from paec_loss.methods.seed_grpo import SEEDGRPO


def test_equals_values_computed_by_hand():
    """Four answers in classes of 2, 1, 1: SE = 1.5 ln 2, which is 3/4 of ln 4; R - mean = 1/2."""
    rollouts = rollouts_of([1.0, 1.0, 0.0, 0.0], [0] * 4, [[-1.0]] * 4, answer_ids=[5, 5, 0, 1])
    got = SEEDGRPO(alpha=2.0).advantages(rollouts)[:, 0]
    expected = torch.tensor([0.2, 0.2, -0.2, -0.2], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_the_weights():
    """Sequence probabilities e^-2, e^-2 and 2 e^-2 (two tokens, two tokens, one): P = 1/4, 1/4, 1/2 or thirds."""
    log_prob = [[-1.0, -1.0], [-0.5, -1.5], [math.log(2) - 2]]
    rollouts = rollouts_of([1.0, 0.0, 0.0], [0] * 3, log_prob, answer_ids=[0, 1, 2])
    entropy = 1.5 * math.log(2) / math.log(3)
    got = SEEDGRPO(alpha=1.0).advantages(rollouts)[:, 0]
    assert got[0].item() == pytest.approx(2 / 3 / (1 + entropy), rel=1e-12)
    got = SEEDGRPO(alpha=1.0, weights="counts").advantages(rollouts)[:, 0]
    assert got[0].item() == pytest.approx(1 / 3, rel=1e-12)  # SE = ln 3


@pytest.mark.parametrize("weights", ["probability", "counts"])
def test_against_the_definition(weights):
    rollouts = random_rollouts(1)
    got = SEEDGRPO(alpha=0.8, weights=weights).advantages(rollouts)
    assert got.abs().max() > 0
    for p in (1, 2, 4):
        rows = [i for i in range(9) if rollouts.group_id[i] == p and rollouts.lengths[i] > 0]
        mass: dict[int, float] = {}
        for i in rows:
            probability = math.exp(rollouts.log_prob[i][rollouts.response_mask[i]].sum().item())
            cluster = int(rollouts.answer_ids[i])
            mass[cluster] = mass.get(cluster, 0.0) + (probability if weights == "probability" else 1.0)
        shares = [value / sum(mass.values()) for value in mass.values()]
        entropy = -sum(q * math.log(q) for q in shares)
        mean = sum(rollouts.rewards[i].item() for i in rows) / len(rows)
        for i in rows:
            factor = 1 / (1 + 0.8 * entropy / math.log(len(rows))) if len(rows) > 1 else 1.0
            expected = (rollouts.rewards[i].item() - mean) * factor
            assert got[i, : rollouts.lengths[i]].tolist() == pytest.approx(
                [expected] * int(rollouts.lengths[i]), rel=1e-12, abs=1e-15
            )
    assert got[~rollouts.response_mask].abs().max() == 0


@pytest.mark.parametrize(
    ("factor", "expected"), [("inverse", 0.8), ("linear", 0.75), ("exponential", 0.778801), ("focal", 0.707107)]
)
def test_the_factors(factor, expected):
    """Two answers, twice each, of four: SE = ln 2 is half of ln 4; alpha 1/2, R - mean = 1/2."""
    rollouts = rollouts_of([1.0, 1.0, 0.0, 0.0], [0] * 4, [[-1.0]] * 4, answer_ids=[5, 5, 0, 0])
    got = SEEDGRPO(alpha=0.5, factor=factor).advantages(rollouts)[:, 0]
    assert_six_digits(got, [expected / 2, expected / 2, -expected / 2, -expected / 2])


@pytest.mark.parametrize(("factor", "expected"), [("linear", 0.0), ("exponential", math.exp(-1)), ("focal", 0.0)])
def test_the_factors_where_all_answers_differ(factor, expected):
    rollouts = rollouts_of([1.0, 0.0, 0.0], [0] * 3, [[-1.0]] * 3, answer_ids=[0, 1, 2])
    got = SEEDGRPO(alpha=1.0, factor=factor, weights="counts").advantages(rollouts)[:, 0]
    assert got.tolist() == pytest.approx([2 / 3 * expected, -expected / 3, -expected / 3], rel=1e-9, abs=1e-12)
    agreed = rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-2.0]], answer_ids=[3, 3])
    assert SEEDGRPO(alpha=1.0, factor=factor).advantages(agreed)[:, 0].tolist() == [0.5, -0.5]


def test_a_linear_factor_stays_positive():
    with pytest.raises(ValueError, match=r"^method.alpha=1.5: must be at most 1 with method.factor=linear"):
        SEEDGRPO(alpha=1.5, factor="linear")
    assert SEEDGRPO(alpha=1.5, factor="focal").alpha == 1.5


def test_limiting_cases():
    rewards = [1.0, 0.0, 0.0, 1.0]
    rollouts = rollouts_of(rewards, [0, 0, 0, 1], [[-1.0], [-2.0], [], [-1.0]], answer_ids=[0, 1, 2, 3])
    assert SEEDGRPO(alpha=0.0).advantages(rollouts)[:, 0].tolist() == [0.5, -0.5, 0, 0]  # Dr.GRPO
    agreed = rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-2.0]], answer_ids=[3, 3])  # SE 0
    assert SEEDGRPO(alpha=5.0).advantages(agreed)[:, 0].tolist() == [0.5, -0.5]
    alike = rollouts_of([1.0, 1.0], [0, 0], [[-1.0], [-2.0]], answer_ids=[3, 4])
    assert SEEDGRPO().advantages(alike).abs().max() == 0


@pytest.mark.parametrize("field, value", [("alpha", -1), ("weights", "count"), ("factor", "square")])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        SEEDGRPO(**{field: value})
