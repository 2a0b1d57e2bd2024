"""PAEC with a dual variable: the multiplier's steps by hand, the term's gradient, every split, its memory."""

from __future__ import annotations

import pytest
import torch
from batches import assert_any_split, hand_batch, isclose, mini_batch_loss, random_batch, rollouts_of

from paec_loss.methods.none import NoMethod
from paec_loss.methods.paec import PAEC
from paec_loss.methods.paec_dual import PAECDual

MASK = {"mask": "none", "rho": 0.0, "lambda_ent": 0.0}
"""Every token is selected, so Hbar is the mean entropy."""


def observed(tracker, step: int, entropy: float) -> dict[str, float]:
    return tracker.observe(rollouts_of([1.0], [0], [[-1.0, -1.0]], entropy=[[entropy, entropy]], step=step))


def test_the_multiplier_by_hand():
    """H_0 = 2, floor 1.6, rate 0.5: gaps of 0.3, 0.1 and -0.5 of the anchor give 0.15, 0.2 and then 0."""
    tracker = PAECDual(**MASK, anchor_steps=1, rho_min=0.8, dual_rate=0.5).tracker()
    assert observed(tracker, 1, 2.0)["multiplier"] == 0 and tracker.signal(1) == {"multiplier": 0.0}
    found = observed(tracker, 2, 1.0)
    assert isclose(found["multiplier"], 0.15) and isclose(found["penalty"], 0.15 * 0.6) and found["penalty_active"] == 1
    assert isclose(tracker.signal(2)["multiplier"], 0.15) and isclose(tracker.signal(2)["floor"], 1.6)
    assert isclose(observed(tracker, 3, 1.4)["multiplier"], 0.2)
    found = observed(tracker, 4, 2.6)
    assert found["multiplier"] == 0 and found["penalty"] == 0 and found["penalty_active"] == 0


def test_a_constant_gap_is_integrated():
    """The penalty's force would stay where it is; the multiplier grows by rate * gap / anchor in every step."""
    tracker = PAECDual(**MASK, anchor_steps=1, rho_min=0.9, dual_rate=0.1).tracker()
    observed(tracker, 1, 1.0)
    for step in range(2, 12):
        found = observed(tracker, step, 0.8)
    assert isclose(found["multiplier"], 10 * 0.1 * 0.1)


def test_the_gradient_by_hand():
    """Entropies 1 and 3 of two tokens, multiplier 0.5: the loss term -0.5 * mean has the gradient -0.25 at each."""
    tokens = hand_batch([[-1.0, -1.0]], [[0.0, 0.0]], entropy=[[1.0, 3.0]])
    loss = mini_batch_loss(PAECDual(**MASK), tokens, multiplier=0.5, floor=9.0)
    (gradient,) = torch.autograd.grad(loss, tokens.statistics.entropy)
    torch.testing.assert_close(gradient, torch.full_like(gradient, -0.25), rtol=1e-12, atol=0)


def test_it_is_paecs_term_with_another_coefficient():
    """PAEC's slope at a gap g is 2 lambda g; without a multiplier it is the clipped surrogate."""
    logits, tokens = random_batch()
    ours = mini_batch_loss(PAECDual(lambda_ent=0.02), tokens, multiplier=0.3)
    theirs = mini_batch_loss(PAEC(lambda_ent=0.32), tokens)
    idle, plain = mini_batch_loss(PAECDual(), tokens), mini_batch_loss(NoMethod(), tokens)
    found = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs, idle, plain)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-15)
    assert torch.equal(found[2], found[3]) and not torch.equal(found[0], found[3])


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(PAECDual(), multiplier=0.5)
    assert_any_split(PAECDual(quantile_scope="mini_batch", average="mass"), multiplier=0.5)


def test_memory():
    method = PAECDual(**MASK, anchor_steps=1)
    tracker, other = method.tracker(), method.tracker()
    observed(tracker, 1, 2.0)
    observed(tracker, 2, 1.0)
    other.load_state_dict(tracker.state_dict())
    assert other.signal(3) == tracker.signal(3) and other.signal(3)["multiplier"] > 0
    assert observed(other, 3, 1.1) == observed(tracker, 3, 1.1)
    for wrong in (float("nan"), -1.0):
        with pytest.raises(ValueError, match="the multiplier in the state is"):
            other.load_state_dict({**tracker.state_dict(), "multiplier": wrong})
    with pytest.raises(ValueError, match="the multiplier in the state is None"):
        other.load_state_dict(PAEC(anchor_steps=1).tracker().state_dict())


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"dual_rate": 0}, "method.dual_rate=0: must be > 0"),
        ({"lambda_low": 1.0}, "method.lambda_low=1.0: must be 0, the multiplier takes its place"),
        ({"penalty": "two_sided"}, "method.penalty=two_sided: must be floor"),
    ],
)
def test_bad_field_values_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        PAECDual(**fields)
