"""SENT: the two groups of tokens by hand, KL and gradient, the formula, ties, every split."""

from __future__ import annotations

import math

import pytest
import torch
from batches import assert_any_split, detached, hand_batch, mini_batch_loss, random_batch, update_of

from paec_loss.methods.sent import SENT

# Lowest 80 % of 5 tokens: all but the entropy of 9, whose covariance would be the highest. The others have A = 1, 1,
# -1, -1 and log p = -1, -3, -1, -3: c = 1, -1, -1, 1 around means 0 and -2.
LOG_PROB = [[-1.0, -3.0, -0.1], [-1.0, -3.0]]
ADVANTAGES = [[1.0, 1.0, 1.0], [-1.0, -1.0]]
ENTROPY = [[1.0, 2.0, 9.0], [3.0, 0.0]]
KL = math.exp(1) - 2  # log p_ref - log p = 1


def weights(method: SENT, tokens) -> list[float]:
    """Weight of every token's KL times the number of tokens, from the gradient in ref = log p + 1: -(e - 1) w."""
    update = update_of(tokens, method)
    loss = method.loss_term(tokens, method.prepare(detached(tokens), update), update)
    (gradient,) = torch.autograd.grad(loss, tokens.log_prob)
    found = (gradient * update.tokens / (1 - math.e))[tokens.response_mask]
    assert loss.item() == pytest.approx(found.sum().item() * KL / update.tokens, rel=1e-12)
    return found.tolist()


def batch(log_prob=LOG_PROB, advantages=ADVANTAGES, entropy=ENTROPY):
    reference = [[value + 1 for value in row] for row in log_prob]
    return hand_batch(log_prob, advantages, entropy=entropy, ref_log_prob=reference)


def test_equals_values_computed_by_hand():
    """At least one token of highest covariance; c = 1 twice is a tie, and both count."""
    assert weights(SENT(), batch()) == pytest.approx([0.2, 0.05, 0.0, 0.05, 0.2], rel=1e-12)
    slightly = [[-0.9, -3.0, -0.1], [-1.0, -3.0]]
    assert weights(SENT(), batch(slightly)) == pytest.approx([0.2, 0.05, 0.0, 0.05, 0.05], rel=1e-12)
    assert weights(SENT(ratio=0.5), batch(slightly)) == pytest.approx([0.2, 0.05, 0.0, 0.05, 0.2], rel=1e-12)
    assert weights(SENT(ratio=1.0, low_entropy=0.4), batch()) == pytest.approx([0.2, 0, 0, 0, 0.2], rel=1e-12)


def test_a_share_of_the_tokens_is_not_one_short():
    """0.29 * 100 rounds to slightly less than 29: the edge is between the entropies 29 and 30, 28 and 29 of them."""
    rising = [[-0.1 * i for i in range(1, 101)]]
    tokens = batch(rising, [[1.0] * 100], [[float(i) for i in range(1, 101)]])
    method = SENT(low_entropy=0.29)
    assert method.prepare(detached(tokens), update_of(tokens, method)).entropy == 29.5


def test_ties_of_entropy_are_on_the_same_side():
    tokens = batch(entropy=[[1.0, 2.0, 2.0], [2.0, 0.0]])
    assert sum(w > 0 for w in weights(SENT(low_entropy=0.4), tokens)) == 2
    assert sum(w > 0 for w in weights(SENT(low_entropy=0.6), tokens)) == 5


def reference(tokens, ratio: float, low_entropy: float) -> torch.Tensor:
    """With an order of the tokens instead of thresholds."""
    inside = tokens.response_mask
    log_prob, advantage = tokens.log_prob[inside], tokens.advantages[inside]
    order = tokens.entropy.detach()[inside].argsort()
    low = order[: max(1, int(low_entropy * len(order)))]
    covariance = (advantage[low] - advantage[low].mean()) * (log_prob[low] - log_prob[low].mean()).detach()
    top = low[covariance.argsort(descending=True)[: max(1, int(ratio * len(low)))]]
    weight = torch.zeros_like(advantage)
    weight[low], weight[top] = 0.05, 0.2
    difference = tokens.ref_log_prob[inside] - log_prob
    return (weight * (difference.exp() - difference - 1)).mean()


@pytest.mark.parametrize("ratio, low_entropy", [(2e-4, 0.8), (0.3, 0.5)])
def test_against_the_formula(ratio, low_entropy):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    method = SENT(ratio=ratio, low_entropy=low_entropy)
    update = update_of(tokens, method)
    loss = method.loss_term(tokens, method.prepare(detached(tokens), update), update)
    expected = reference(tokens, ratio, low_entropy)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("statistics_from", ["exact", "step"])
def test_the_gradient_does_not_depend_on_the_split(statistics_from):
    assert_any_split(SENT(ratio=0.2, statistics_from=statistics_from))


def test_coefficient_zero_is_the_clipped_surrogate():
    _, tokens = random_batch()
    ratio = (tokens.log_prob - tokens.old_log_prob).exp()
    plain = torch.minimum(ratio * tokens.advantages, ratio.clamp(0.8, 1.2) * tokens.advantages)
    loss = mini_batch_loss(SENT(coefficient=0), tokens)
    torch.testing.assert_close(loss, -plain[tokens.response_mask].mean(), rtol=1e-12, atol=0)


def test_at_the_reference_it_does_nothing():
    tokens = hand_batch(LOG_PROB, ADVANTAGES, entropy=ENTROPY, ref_log_prob=LOG_PROB)
    update = update_of(tokens, SENT())
    loss = SENT().loss_term(tokens, SENT().prepare(detached(tokens), update), update)
    assert loss.item() == 0 and not torch.autograd.grad(loss, tokens.log_prob)[0].any()


def test_a_single_token_and_none():
    single = hand_batch([[-1.0]], [[1.0]], entropy=[[1.0]], ref_log_prob=[[0.0]])
    assert weights(SENT(), single) == pytest.approx([0.2])
    empty = hand_batch([[]], [[]], entropy=[[]], ref_log_prob=[[]])
    update = update_of(empty, SENT())
    assert SENT().loss_term(empty, SENT().prepare(detached(empty), update), update).item() == 0


def test_it_says_what_it_needs():
    assert SENT.needs == {"reference", "curriculum"}


@pytest.mark.parametrize(
    "field, value", [("ratio", 0), ("low_entropy", 1.5), ("coefficient", -1), ("high", float("nan"))]
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        SENT(**{field: value})
