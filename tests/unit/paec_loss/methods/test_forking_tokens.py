"""Forking tokens: the kept ones by hand, ties, the denominator, the limit rho = 1, every split."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import (
    CLIP,
    assert_any_split,
    detached,
    hand_batch,
    isclose,
    mini_batch_loss,
    random_batch,
    rows,
    update_of,
)

from paec_loss.methods.forking_tokens import ForkingTokens
from paec_loss.methods.none import NoMethod

ENTROPY = [[0.1, 0.9, 0.2], [0.8], [0.3, 0.7]]
ADVANTAGES = [[1.0, 2.0, 3.0], [-4.0], [5.0, 6.0]]
TOKENS = hand_batch([[-1.0] * len(row) for row in ENTROPY], ADVANTAGES, entropy=ENTROPY)


def kept(method: ForkingTokens, tokens, **update) -> tuple[torch.Tensor, int]:
    step = update_of(tokens, method, **update)
    return method.selection(tokens, method.prepare(detached(tokens), step), step)


@pytest.mark.parametrize(
    "rho, expected",
    [
        (1e-9, [[0, 1, 0], [0, 0, 0], [0, 0, 0]]),  # at least one
        (0.2, [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),  # ceil(1.2)
        (0.5, [[0, 1, 0], [1, 0, 0], [0, 1, 0]]),
        (1.0, [[1, 1, 1], [1, 0, 0], [1, 1, 0]]),
    ],
)
def test_the_kept_tokens_by_hand(rho, expected):
    mask, count = kept(ForkingTokens(rho=rho), TOKENS)
    assert mask.int().tolist() == expected and count == sum(map(sum, expected))


def test_the_loss_is_the_mean_over_the_kept_tokens():
    assert isclose(mini_batch_loss(ForkingTokens(rho=0.5), TOKENS).item(), -(2 - 4 + 6) / 3)  # on-policy: -A
    (gradient,) = torch.autograd.grad(mini_batch_loss(ForkingTokens(rho=0.5), TOKENS), TOKENS.statistics.log_prob)
    expected = torch.tensor([[0.0, -2 / 3, 0.0], [4 / 3, 0.0, 0.0], [0.0, -2.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rho", [0.2, 0.07, 0.55])
def test_they_are_those_at_or_above_the_quantile(rho):
    """The published formulation: the tokens with H_t >= the (1 - rho)-quantile of H_t."""
    logits, tokens = random_batch(lengths=(40, 1, 29, 0, 30))
    log_probs = logits - logits.logsumexp(-1, keepdim=True)
    entropy = -(log_probs.exp() * log_probs).sum(-1).detach()
    inside = tokens.response_mask
    chosen = inside & (entropy >= torch.quantile(entropy[inside], 1 - rho))
    ratio = (tokens.log_prob - tokens.old_log_prob).exp()
    surrogate = torch.minimum(ratio * tokens.advantages, ratio.clamp(1 - CLIP.low, 1 + CLIP.high) * tokens.advantages)
    expected = -surrogate[chosen].mean()
    loss = mini_batch_loss(ForkingTokens(rho=rho), tokens)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_of_equal_entropies_a_lot_keeps_the_exact_number_in_every_split():
    ones = [[-1.0] * 30, [-1.0] * 19, [-1.0]]
    tokens = hand_batch(ones, ones, entropy=[[0.5] * 30, [0.5] * 19, [0.5]])
    method = ForkingTokens()
    mask, count = kept(method, tokens)
    assert mask.sum() == count == 10
    assert (kept(method, tokens, step=4)[0] != mask).any() and (kept(method, tokens, seed=2)[0] != mask).any()
    order = torch.tensor([2, 0, 1])
    shuffled, _ = kept(method, rows(tokens, order))
    assert (shuffled == mask[order]).all()


@pytest.mark.parametrize(
    "padding, expected", [(0, [[0, 0, 0], [1, 0, 0], [0, 1, 0]]), (2, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])]
)
def test_a_padding_row_may_carry_the_number_of_a_response(padding, expected):
    """A row without tokens has the number of the second: it hides nothing of it, and has nothing kept."""
    mask, response = TOKENS.response_mask.clone(), torch.tensor([5, 7, 9])
    mask[padding], response[padding] = False, 7
    tokens = replace(TOKENS, response_mask=mask, response_id=response)
    assert kept(ForkingTokens(rho=0.5), tokens)[0].int().tolist() == expected


def test_all_tokens_are_the_clipped_surrogate():
    _, tokens = random_batch()
    loss, expected = mini_batch_loss(ForkingTokens(rho=1.0), tokens), mini_batch_loss(NoMethod(), tokens)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", [ForkingTokens(), ForkingTokens(rho=0.6, statistics_from="step")])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize("value", [0, 1.1, -0.2, float("nan"), "0.2"])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.rho="):
        ForkingTokens(rho=value)
