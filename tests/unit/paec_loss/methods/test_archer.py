"""Archer: the two classes, their clip ranges and KL by hand, the formula token by token, the limits, every split."""

from __future__ import annotations

import math

import pytest
import torch
from batches import (
    CLIP,
    assert_any_split,
    assert_same_gradient,
    assert_six_digits,
    gradient_weights,
    hand_batch,
    isclose,
    mini_batch_loss,
    random_batch,
    toy_batch,
    update_of,
)

from paec_loss.methods.archer import Archer, by_class, uncertain
from paec_loss.methods.none import NoMethod


def test_uncertain_tokens_by_hand():
    """Interpolated quantiles 1.44 and 1.24 of entropies .3 1.8 .9 1.2 and .7 1.6 .1."""
    tokens = toy_batch()
    assert uncertain(tokens, 0.8)[tokens.response_mask].int().tolist() == [0, 1, 0, 0, 0, 1, 0]
    assert uncertain(tokens, 0.0)[tokens.response_mask].int().tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert uncertain(tokens, 1.0).sum() == 0
    assert by_class(uncertain(tokens, 0.8), 0.1, 0.7)[0].tolist() == [0.7, 0.1, 0.7, 0.7]


def test_a_single_token_and_an_empty_response_have_none():
    tokens = hand_batch([[-1.0], [], [-1.0, -1.0]], [[1.0], [], [1.0, 1.0]], entropy=[[2.0], [], [1.0, 1.0]])
    assert uncertain(tokens, 0.8).sum() == 0


def test_clip_ranges_by_hand():
    """Token 2 (r = 1.49) and token 6 (.67) have the wide range, token 4 (1.35) the narrow one."""
    weights = gradient_weights(Archer(), toy_batch())
    assert_six_digits(weights, [0.904837, 1.491825, 1, 0, 1, 0.670320, 1.030455])
    weights = gradient_weights(Archer(clip_uncertain=0.3, clip_certain=0.4), toy_batch())
    assert_six_digits(weights, [0.904837, 0, 1, 1.349859, 1, 0, 1.030455])


def test_the_kl_by_hand():
    """d = ln 2 at the certain token, -ln 2 at the uncertain one: KL = 1 - ln 2 and ln 2 - 1/2."""
    two = math.log(2)
    tokens = hand_batch([[-1.0, -2.0]], [[0.0, 0.0]], entropy=[[0.5, 1.5]], ref_log_prob=[[-1.0 + two, -2.0 - two]])
    assert isclose(mini_batch_loss(Archer(kl_certain=0.3), tokens).item(), 0.3 * (1 - two) / 2)
    loss = mini_batch_loss(Archer(kl_certain=0.3, kl_uncertain=0.1), tokens)
    assert isclose(loss.item(), (0.3 * (1 - two) + 0.1 * (two - 0.5)) / 2)
    (gradient,) = torch.autograd.grad(loss, tokens.log_prob)  # d KL / d log p = 1 - exp(d)
    expected = torch.tensor([[0.3 * (1 - 2) / 2, 0.1 * (1 - 0.5) / 2]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def reference(tokens, quantile: float, wide: float, narrow: float, kl: tuple[float, float]) -> torch.Tensor:
    total, count = 0.0, 0
    for i, inside in enumerate(tokens.response_mask):
        if not inside.any():
            continue
        entropy = tokens.entropy[i].detach()[inside]
        high = entropy > torch.quantile(entropy, quantile)
        rows = (tokens.log_prob[i], tokens.old_log_prob[i], tokens.ref_log_prob[i], tokens.advantages[i])
        for taken, old, ref, a, is_high in zip(*(row[inside] for row in rows), high, strict=True):
            ratio, width = (taken - old).exp(), wide if is_high else narrow
            loss = torch.maximum(-a * ratio, -a * ratio.clamp(1 - width, 1 + width))
            loss = torch.minimum(loss, -a * CLIP.dual_clip) if a < 0 else loss
            d = ref - taken
            total = total + loss + (kl[0] if is_high else kl[1]) * (d.exp() - d - 1)
            count += 1
    return total / count


@pytest.mark.parametrize("quantile, wide, narrow, kl", [(0.8, 0.5, 0.2, (0.0, 0.001)), (0.3, 0.1, 0.05, (0.4, 0.2))])
def test_against_the_formula(quantile, wide, narrow, kl):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    method = Archer(quantile, clip_uncertain=wide, clip_certain=narrow, kl_uncertain=kl[0], kl_certain=kl[1])
    assert_same_gradient(mini_batch_loss(method, tokens), reference(tokens, quantile, wide, narrow, kl), logits)


def test_equal_ranges_without_kl_are_the_clipped_surrogate():
    logits, tokens = random_batch()
    loss = mini_batch_loss(Archer(clip_uncertain=0.2, clip_certain=0.2, kl_certain=0), tokens)
    assert_same_gradient(loss, mini_batch_loss(NoMethod(), tokens), logits)


def test_its_weights_are_those_of_the_kl():
    tokens = toy_batch()
    method = Archer(kl_certain=0.5)
    weights = method.token_weights(tokens, None, update_of(tokens, method))[tokens.response_mask]
    assert weights.tolist() == [0.5, 0.0, 0.5, 0.5, 0.5, 0.0, 0.5]


@pytest.mark.parametrize("method", [Archer(), Archer(quantile=0.4, clip_certain=0.01, kl_certain=0.5)])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize(
    "field, value", [("quantile", 1.1), ("clip_uncertain", -0.1), ("clip_certain", 2), ("kl_certain", float("nan"))]
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        Archer(**{field: value})
