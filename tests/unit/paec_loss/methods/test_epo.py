"""EPO: the corridor by hand, its gradient against autograd, the history over steps and a checkpoint."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from batches import assert_any_split, detached, hand_batch, mini_batch_loss, random_batch, rollouts_of, update_of

from paec_loss.methods.epo import EPO, Corridor

BETA = 1 + math.exp(-3 / 75)  # update_of is step 3


def term(method: EPO, tokens, **signal: float) -> torch.Tensor:
    update = update_of(tokens, method, **signal)
    return method.loss_term(tokens, method.prepare(detached(tokens), update), update)


def reference(method: EPO, tokens, past: float | None) -> torch.Tensor:
    """-lambda (Hbar - beta_k hinge(Hbar)), autograd through Hbar of the whole mini-batch."""
    hbar = tokens.entropy[tokens.response_mask].mean()
    hinge = 0.0 if past is None else (0.8 * past - hbar).clamp(min=0) + (hbar - 1.2 * past).clamp(min=0)
    return -0.001 * (hbar - BETA * hinge)


@pytest.mark.parametrize(
    "past, hinge, slope",
    [(2.0, 0.0, -1.0), (4.0, 1.2, -1 - BETA), (1.0, 0.8, BETA - 1)],  # corridors [1.6, 2.4], [3.2, 4.8], [0.8, 1.2]
)
def test_equals_values_computed_by_hand(past, hinge, slope):
    """Entropies 1, 3 and 2: Hbar = 2."""
    tokens = hand_batch([[-1.0, -1.0], [-1.0]], [[0.0, 0.0], [0.0]], entropy=[[1.0, 3.0], [2.0]])
    loss = term(EPO(), tokens, past_entropy=past)
    assert loss.item() == pytest.approx(-0.001 * (2 - BETA * hinge), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, tokens.statistics.entropy)
    share = 0.001 * slope / 3
    torch.testing.assert_close(gradient, torch.tensor([[share, share], [share, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("past", [None, 0.3, 1.2, 20.0])
def test_against_autograd_of_the_formula(past):
    logits, tokens = random_batch()
    loss = term(EPO(), tokens, **({} if past is None else {"past_entropy": past}))
    expected = reference(EPO(), tokens, past)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-18)


@pytest.mark.parametrize("past", [0.3, 20.0])
@pytest.mark.parametrize("statistics_from", ["exact", "step"])
def test_the_gradient_does_not_depend_on_the_split(past, statistics_from):
    assert_any_split(EPO(coefficient=0.5, statistics_from=statistics_from), past_entropy=past)


def test_beta_falls_to_one():
    tokens = hand_batch([[-1.0]], [[0.0]], entropy=[[2.0]])
    update = update_of(tokens, EPO())
    losses = [
        EPO(decay=10).loss_term(tokens, Corridor(1, 1.2), replace(update, step=step)).item() for step in (10, 10_000)
    ]
    assert losses == pytest.approx([-0.001 * (2 - (1 + math.exp(-1)) * 0.8), -0.001 * (2 - 0.8)], rel=1e-12)


def test_coefficient_zero_is_the_clipped_surrogate():
    _, tokens = random_batch()
    loss = mini_batch_loss(EPO(coefficient=0), tokens, past_entropy=9.0)
    ratio = (tokens.log_prob - tokens.old_log_prob).exp()
    plain = torch.minimum(ratio * tokens.advantages, ratio.clamp(0.8, 1.2) * tokens.advantages)
    torch.testing.assert_close(loss, -plain[tokens.response_mask].mean(), rtol=1e-12, atol=0)


def steps(*entropies: list[list[float]], start: int = 1):
    for step, entropy in enumerate(entropies, start):
        log_prob = [[-1.0] * len(row) for row in entropy]
        yield rollouts_of([1.0] * len(entropy), [0] * len(entropy), log_prob, entropy=entropy, step=step)


def test_history():
    """The mean of the steps before this one; a step's own Hbar (a mean over tokens) comes in with the next."""
    tracker = EPO().tracker()
    assert tracker.signal(1) == {}
    found = [tracker.observe(r) for r in steps([[1.0, 2.0], [6.0]], [[1.0], []], [[8.0], [8.0]])]
    assert found == [{"entropy": 3.0}, {"entropy": 1.0, "past_entropy": 3.0}, {"entropy": 8.0, "past_entropy": 2.0}]
    assert tracker.signal(3) == {"past_entropy": 2.0} and tracker.signal(4) == {"past_entropy": 4.0}


def test_history_goes_through_a_checkpoint():
    straight, before, after = (EPO().tracker() for _ in range(3))
    first, second = list(steps([[0.1, 0.2]], [[0.7]]))
    for tracker in (straight, before):
        tracker.observe(first)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.observe(second) == straight.observe(second)
    assert after.signal(3) == straight.signal(3)


def test_history_refuses_a_gap_and_what_is_no_number():
    tracker = EPO().tracker()
    with pytest.raises(ValueError, match="observed step 2 after 0 steps"):
        tracker.observe(next(steps([[1.0]], start=2)))
    with pytest.raises(ValueError, match="step 1 is nan"):
        tracker.observe(next(steps([[math.nan]])))


@pytest.mark.parametrize(
    "state", [{}, {"observations": 3}, {"observations": [1.0, math.inf]}, {"observations": [-1.0]}]
)
def test_state_refused(state):
    with pytest.raises(ValueError, match="entropy history state"):
        EPO().tracker().load_state_dict(state)


@pytest.mark.parametrize("fields", [{"coefficient": -1}, {"decay": 0}, {"kappa_low": 1.5}, {"kappa_high": 0.5}])
def test_bad_field_values_are_refused(fields):
    with pytest.raises(ValueError, match="method.(coefficient|decay|kappa_low)="):
        EPO(**fields)
