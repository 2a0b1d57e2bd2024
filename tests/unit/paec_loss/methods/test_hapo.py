"""HAPO: h by hand, advantages and ranges token by token, the formula with its rms, every split."""

from __future__ import annotations

import math

import pytest
import torch
from batches import CLIP, assert_any_split, detached, hand_batch, mini_batch_loss, random_batch, update_of

from paec_loss.methods.hapo import HAPO

# ln H = 0, 1, 2, 3, 5: with pivot 0.5 (the third) d = -2, -1, 0, 1, 3, so h = -1, -1/2, 0, 1/3, 1.
ENTROPY = [[math.e**0, math.e**1], [math.e**2, math.e**3, math.e**5]]
H = [-1.0, -0.5, 0.0, 1 / 3, 1.0]
OLD = [[0.0, 0.0], [0.0, 0.0, 0.0]]


def at_ratio(ratio: float, advantage: float):
    log_prob = [[math.log(ratio)] * len(row) for row in ENTROPY]
    return hand_batch(log_prob, [[advantage] * len(row) for row in ENTROPY], old_log_prob=OLD, entropy=ENTROPY)


def advantages(method: HAPO, tokens) -> torch.Tensor:
    update = update_of(tokens, method)
    return method.token_advantages(tokens, method.prepare(detached(tokens), update), update)[tokens.response_mask]


def losses(method: HAPO, tokens) -> torch.Tensor:
    update = update_of(tokens, method)
    return method.policy_loss(tokens, method.prepare(detached(tokens), update), update)[tokens.response_mask]


@pytest.mark.parametrize(
    "ratio, weights",
    [
        (1.0, [0.0, 0.5, 1.0, 1.0, 1.0]),  # inside every band: h <= 0 changes
        (0.85, [0.0, 0.5, 1.0, 4 / 3, 2.0]),  # low / 2 = 0.2, 0.15, 0.1, 0.067, 0
        (0.7, [1.0, 1.0, 1.0, 4 / 3, 2.0]),  # outside every band: h > 0 changes
        (1.15, [1.0, 1.0, 1.0, 4 / 3, 1.0]),  # high / 2 = 0, 0.05, 0.1, 0.133, 0.2
    ],
)
def test_advantages_by_hand(ratio, weights):
    tokens = at_ratio(ratio, 3.0)
    torch.testing.assert_close(advantages(HAPO(pivot=0.5), tokens), 3 * torch.tensor(weights, dtype=torch.float64))


def test_clip_ranges_by_hand():
    """0.2 (1 - h) low and 0.2 (1 + h) high: ratio 1.5 with A > 0 shows the upper bound, 0.5 with A < 0 the lower."""
    upper, lower = losses(HAPO(pivot=0.5), at_ratio(1.5, 1.0)), losses(HAPO(pivot=0.5), at_ratio(0.5, -1.0))
    torch.testing.assert_close(-upper, torch.tensor([1.0, 1.1, 1.2, 1 + 0.8 / 3, 1.4], dtype=torch.float64))
    torch.testing.assert_close(lower, torch.tensor([0.6, 0.7, 0.8, 1 - 0.4 / 3, 1.0], dtype=torch.float64))


def reference(tokens, pivot: float = 0.8, alpha: float = 1.0, beta: float = 1.0) -> torch.Tensor:
    """The published formula with its rms, one token at a time."""
    inside = tokens.response_mask
    log_entropy = tokens.entropy.detach()[inside].log()
    h = log_entropy - torch.quantile(log_entropy, pivot, interpolation="nearest")
    h = h / h.square().mean().sqrt()
    top, bottom = h.max(), h.min().abs()
    ratios = (tokens.log_prob - tokens.old_log_prob)[inside].exp()
    total = 0.0
    for h_t, ratio, advantage in zip(h, ratios, tokens.advantages[inside], strict=True):
        h_t = h_t / top if h_t > 0 else h_t / bottom
        low, high = CLIP.low * (1 - alpha * h_t), CLIP.high * (1 + alpha * h_t)
        within = 1 - low / 2 <= ratio <= 1 + high / 2
        if (h_t > 0 and not within) or (h_t <= 0 and within):
            advantage = advantage * (1 + beta * h_t)
        loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))
        total = total + (torch.minimum(loss, -advantage * CLIP.dual_clip) if advantage < 0 else loss)
    return total / len(ratios)


@pytest.mark.parametrize("fields", [{}, {"alpha": 0.4, "beta": 0.7, "pivot": 0.3}])
def test_against_the_formula(fields):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    loss, expected = mini_batch_loss(HAPO(**fields), tokens), reference(tokens, **fields)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("statistics_from", ["exact", "step"])
def test_the_gradient_does_not_depend_on_the_split(statistics_from):
    assert_any_split(HAPO(statistics_from=statistics_from))


def test_entropies_that_have_moved_beyond_the_steps_extremes():
    """h is -1 or 1 there, so no advantage turns its sign and no bound of a clip range leaves [0, 0.4]."""
    tokens = at_ratio(1.0, 3.0)
    context = HAPO(pivot=0.5).prepare(detached(tokens), update_of(tokens, HAPO()))
    log_entropy = [[-3.0, 1.0], [2.0, 3.0, 9.0]]  # d = -5, -1, 0, 1, 7 over the step's 2 and 3
    moved = hand_batch(
        [[0.0] * len(row) for row in log_entropy],
        [[3.0] * len(row) for row in log_entropy],
        old_log_prob=[[-math.log(1.5)] * len(row) for row in log_entropy],
        entropy=[[math.exp(value) for value in row] for row in log_entropy],
    )
    inside, update = moved.response_mask, update_of(moved, HAPO())
    weights = HAPO(pivot=0.5).token_advantages(moved, context, update)[inside] / 3
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 1.0, 4 / 3, 2.0], dtype=torch.float64))
    loss = HAPO(pivot=0.5).policy_loss(moved, context, update)[inside]
    bounds = torch.tensor([1.0, 1.1, 1.2, 1 + 0.8 / 3, 1.4], dtype=torch.float64)
    torch.testing.assert_close(loss, -3 * bounds)


def test_alpha_and_beta_zero_are_the_clipped_surrogate():
    _, tokens = random_batch()
    ratio = (tokens.log_prob - tokens.old_log_prob).exp()
    plain = torch.minimum(ratio * tokens.advantages, ratio.clamp(0.8, 1.2) * tokens.advantages)
    loss = mini_batch_loss(HAPO(alpha=0, beta=0), tokens)
    torch.testing.assert_close(loss, -plain[tokens.response_mask].mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("entropy", [[[2.0, 2.0], [2.0]], [[0.0, 0.0], [0.0]]])
def test_equal_entropies_change_nothing(entropy):
    tokens = hand_batch([[-1.0, -1.0], [-1.0]], [[1.0, 1.0], [-2.0]], entropy=entropy)
    assert advantages(HAPO(), tokens).tolist() == [1.0, 1.0, -2.0]
    assert losses(HAPO(), tokens).tolist() == [-1.0, -1.0, 2.0]


def test_a_certain_token_is_the_floor():
    """H = 0 counts as 1e-8: h = -1 there, and nothing is NaN."""
    tokens = hand_batch([[-1.0, -1.0, -1.0]], [[1.0, 1.0, 1.0]], entropy=[[0.0, 1.0, 1.0]])
    assert advantages(HAPO(), tokens).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("field, value", [("alpha", 1.1), ("beta", -0.1), ("pivot", 2), ("alpha", float("nan"))])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        HAPO(**{field: value})
