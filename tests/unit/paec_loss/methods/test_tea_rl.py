"""TEA-RL: weights by hand, the bound, the formula in float64, the limits, every split."""

from __future__ import annotations

import pytest
import torch
from batches import (
    assert_any_split,
    assert_same_gradient,
    assert_six_digits,
    detached,
    hand_batch,
    mini_batch_loss,
    random_batch,
    toy_batch,
    update_of,
)

from paec_loss.method import clipped_surrogate
from paec_loss.methods.entropy_bonus import EntropyBonus
from paec_loss.methods.none import NoMethod
from paec_loss.methods.tea_rl import TEARL, Means


def term(method: TEARL, tokens) -> torch.Tensor:
    update = update_of(tokens, method)
    return method.loss_term(tokens, method.prepare(detached(tokens), update), update)


def test_equals_values_computed_by_hand():
    """Means of A and log p .142857 and -.745714; the second token of the second response is at the bound."""
    tokens = toy_batch()
    assert TEARL().prepare(tokens, update_of(tokens, TEARL())) == Means(
        pytest.approx(1 / 7, rel=1e-12), pytest.approx(-5.22 / 7, rel=1e-12)
    )
    found = term(TEARL(), tokens)
    assert_six_digits(found, -2.497426)
    (gradient,) = torch.autograd.grad(found, tokens.statistics.entropy, retain_graph=True)
    weights = [3.668525, 1.104939, 2.836716, 2.389821, 1.257682, 5, 0.913264]
    assert_six_digits(-7 * gradient[tokens.response_mask], weights)
    (through_weights,) = torch.autograd.grad(found, tokens.statistics.log_prob, allow_unused=True)
    assert through_weights is None, "the weights have no gradient"


def test_without_the_bound_the_weights_of_a_response_add_up_to_the_scale():
    tokens = toy_batch()
    (gradient,) = torch.autograd.grad(term(TEARL(scale=4, max_weight=100), tokens), tokens.statistics.entropy)
    torch.testing.assert_close(-7 * gradient.sum(-1), torch.full((2,), 4.0, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("fields", [{}, {"coefficient": 0.02, "scale": 3.0, "max_weight": 0.5}])
def test_against_the_formula(fields):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    method, inside = TEARL(**fields), tokens.response_mask
    log_prob, advantages = tokens.log_prob.detach(), tokens.advantages
    mean_a, mean_p = advantages[inside].mean(), log_prob[inside].mean()
    bonus = torch.zeros((), dtype=torch.float64)
    for row in range(len(inside)):
        here = inside[row]
        powers = ((advantages[row][here] - mean_a) * (log_prob[row][here] - mean_p)).exp()
        weight = (method.scale * powers / powers.sum()).clamp_max(method.max_weight)
        bonus = bonus + (weight * tokens.entropy[row][here]).sum()
    surrogate = clipped_surrogate(tokens, update_of(tokens, NoMethod()).clip)[inside].mean()
    expected = surrogate - method.coefficient * bonus / inside.sum()
    assert_same_gradient(mini_batch_loss(method, tokens), expected, logits)


def test_limiting_cases():
    _, tokens = random_batch()
    assert mini_batch_loss(TEARL(coefficient=0.0), tokens) == mini_batch_loss(NoMethod(), tokens)
    # Equal covariances: every token of a response has scale / length; with responses of one length a plain bonus.
    even = hand_batch([[-1.0, -1.0], [-1.0, -1.0]], [[1.0, 1.0], [-1.0, -1.0]], entropy=[[0.3, 0.6], [0.9, 0.1]])
    plain = mini_batch_loss(EntropyBonus(coefficient=2.0), even)
    torch.testing.assert_close(mini_batch_loss(TEARL(coefficient=1.0, scale=4.0), even), plain, rtol=1e-12, atol=0)
    assert mini_batch_loss(TEARL(coefficient=1.0, scale=4.0), even) != mini_batch_loss(NoMethod(), even)


@pytest.mark.parametrize("method", [TEARL(coefficient=0.1), TEARL(statistics_from="step", max_weight=0.7)])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize("field, value", [("coefficient", float("inf")), ("scale", 0), ("max_weight", -1)])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        TEARL(**{field: value})
