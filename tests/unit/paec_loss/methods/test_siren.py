"""SIREN: the published formula in float64, the anchor of step 1, by hand, every split."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import (
    assert_any_split,
    detached,
    hand_batch,
    isclose,
    mini_batch_loss,
    random_batch,
    rollouts_of,
    update_of,
)
from torch import Tensor

from paec_loss.batch import Tokens
from paec_loss.methods.none import NoMethod
from paec_loss.methods.siren import SIREN
from paec_loss.statistics import token_statistics

LENGTHS = (5, 1, 17, 12, 0, 10)


def nucleus_batch(seed: int = 0) -> tuple[Tensor, Tokens]:
    """A random batch with the statistics of top_p = 0.8."""
    logits, tokens = random_batch(seed, LENGTHS)
    labels = torch.zeros(logits.shape[:2], dtype=torch.long)
    statistics = token_statistics(logits, labels, top_p=SIREN().top_p, backend="reference")
    return logits, replace(tokens, statistics=statistics, old_log_prob=statistics.log_prob.detach())


def selected_entropy(logits: Tensor, inside: Tensor) -> Tensor:
    """Independent: mean over the tokens whose nucleus entropy is above their response's 0.8-quantile of it."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row, length in zip(logits, inside.sum(-1).tolist(), strict=True):
        entropies = []
        for token in row[:length]:
            probability = token.softmax(-1).sort(descending=True).values
            size = int((probability.cumsum(-1) < 0.8).sum()) + 1  # the crossing token is inside
            nucleus = probability[:size] / probability[:size].sum()
            entropies.append(-(nucleus * nucleus.log()).sum())
        if entropies:
            values = torch.stack(entropies)
            above = values > torch.quantile(values.detach(), 0.8)
            total, count = total + values[above].sum(), count + int(above.sum())
    return total / count


@pytest.mark.parametrize("anchor", [0.2, 1.5])
def test_the_formula_on_a_random_batch(anchor):
    """Loss (Hbar_sel - anchor)^2 times the coefficient: its gradient, below and above the anchor."""
    logits, tokens = nucleus_batch()
    loss = mini_batch_loss(SIREN(lambda_low=0.3), tokens, floor=anchor) - mini_batch_loss(NoMethod(), tokens)
    selected = selected_entropy(logits, tokens.response_mask)
    assert (selected - anchor).abs() > 0.1
    expected = 0.3 * (selected - anchor) ** 2
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)
    assert theirs.abs().max() > 1e-3


def test_the_anchor_is_the_first_steps():
    """Nucleus entropies 1..5: the quantile at rank 3.2 is 4.2, so 5 alone is selected; then it no longer moves."""
    tracker = SIREN().tracker()
    for step, top in enumerate([5.0, 9.0, 7.0], start=1):
        row = [1.0, 2.0, 3.0, 4.0, top]
        rollouts = rollouts_of([1.0, 0.0], [0, 0], [[-1.0] * 5, [-1.0]], entropy=[row, [6.0]], step=step)
        assert tracker.observe(rollouts)["selected_entropy"] == top
        assert tracker.signal(step) == ({} if step == 1 else {"floor": 5.0})


def test_equals_values_computed_by_hand():
    """Selected: 5 of the first response; one token is not above its own quantile. Slope 2 c (5 - 4) = 0.01."""
    tokens = hand_batch([[-1.0] * 5, [-1.0]], [[0.0] * 5, [0.0]], entropy=[[1.0, 2.0, 3.0, 4.0, 5.0], [6.0]])
    tokens = replace(tokens, statistics=replace(tokens.statistics, nucleus_entropy=tokens.statistics.entropy * 1))
    method = SIREN()
    (gradient,) = torch.autograd.grad(mini_batch_loss(method, tokens, floor=4.0), tokens.statistics.entropy)
    assert isclose(gradient[0, 4].item(), 0.01) and gradient.count_nonzero() == 1
    context = method.prepare(detached(tokens), update_of(tokens, method, floor=4.0))
    assert context.before == 5.0 and context.normalizer == 1.0


def test_at_step_one_it_is_the_clipped_surrogate():
    logits, tokens = nucleus_batch()
    loss, expected = mini_batch_loss(SIREN(), tokens), mini_batch_loss(NoMethod(), tokens)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    assert torch.equal(ours, theirs) and theirs.abs().max() > 0


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(SIREN(lambda_low=1.0), floor=0.1)


@pytest.mark.parametrize("field, value", [("lambda_low", -1), ("rho", 1.0), ("top_p", 0), ("mask", "softish")])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        SIREN(**{field: value})
