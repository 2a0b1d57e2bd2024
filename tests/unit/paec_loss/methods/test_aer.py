"""AER: weights of prompts and the coefficient over steps by hand, the term, its state, every split."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from batches import (
    assert_any_split,
    assert_same_gradient,
    hand_batch,
    isclose,
    mini_batch_loss,
    random_batch,
    random_rollouts,
    rollouts_of,
    update_of,
)

from paec_loss import MethodStack
from paec_loss.method import clipped_surrogate
from paec_loss.methods import METHODS
from paec_loss.methods.aer import AER
from paec_loss.methods.none import NoMethod


def rollouts(entropy: float, step: int = 1):
    return rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0]], entropy=[[2 * entropy], [0.0]], step=step)


def with_values():
    """Two responses, of prompts with the weights 0.5 and 0.25."""
    tokens = hand_batch([[-1.0, -2.0], [-5.0]], [[0.0, 0.0], [0.0]], entropy=[[0.3, 0.6], [0.9]])
    return replace(tokens, response_value=torch.tensor([0.5, 0.25]))


def test_weights_of_prompts_by_hand():
    """Accuracies 1/4, 0, 1/2 and 1; rewards above 0 count as right."""
    rewards = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.2, 1.0]
    prompt = [7, 7, 7, 7, 3, 3, 5, 5, 9, 9]
    step = rollouts_of(rewards, prompt, [[-1.0]] * 10)
    assert AER().response_value(step).tolist() == [0.5, 0.5, 0.5, 0.5, 1, 1, 0, 0, 0, 0]
    assert AER(rho=1.0).response_value(step).tolist() == [0.75] * 4 + [1, 1, 0.5, 0.5, 0, 0]
    stack = MethodStack([NoMethod(), AER()])
    found = stack.response_value(step)
    assert found.dtype == torch.float32 and found.tolist() == [0.5, 0.5, 0.5, 0.5, 1, 1, 0, 0, 0, 0]
    assert MethodStack([NoMethod()]).response_value(step) is None and stack.needs_rollouts and stack.reads_rewards


def test_a_row_of_padding_has_no_weight():
    step = random_rollouts()
    empty = step.lengths == 0
    assert empty.any() and (AER().response_value(replace(step, rewards=step.rewards * 0))[empty] == 0).all()


def test_the_coefficient_by_hand():
    """H_0 = 1, target .4: .2 below it gives .005 * .2 = .001; it falls above the target, and not below 0."""
    tracker = AER().tracker()
    seen = []
    for step, entropy in enumerate([1.0, 0.2, 0.2, 0.4, 0.5, 2.0, 0.0], start=1):
        metrics = tracker.observe(rollouts(entropy, step))
        assert metrics == {"entropy": entropy, "target": 0.4, **tracker.signal(step)}
        seen.append(tracker.signal(step)["alpha"])
    assert seen == pytest.approx([0, 0.001, 0.002, 0.002, 0.0015, 0, 0.002], abs=1e-15)


def test_a_nan_entropy_is_not_a_coefficient_of_0():
    """In a later step, where alpha was 0.001, and in the first, whose entropy is the anchor."""
    tracker = AER().tracker()
    for step, entropy in enumerate([1.0, 0.2, math.nan], start=1):
        tracker.observe(rollouts(entropy, step))
    assert math.isnan(tracker.signal(3)["alpha"])
    assert math.isnan(mini_batch_loss(AER(), with_values(), **tracker.signal(3)).item())
    first = AER().tracker()
    assert math.isnan(first.observe(rollouts(math.nan))["alpha"])


def test_the_term_by_hand():
    tokens = with_values()
    loss = mini_batch_loss(AER(), tokens, alpha=0.2)
    assert isclose(loss.item(), -0.2 * (0.45 + 0.225) / 3)
    (gradient,) = torch.autograd.grad(loss, tokens.statistics.entropy)
    expected = torch.tensor([[-0.1 / 3, -0.1 / 3], [-0.05 / 3, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_against_the_formula():
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    inside = tokens.response_mask
    bonus = sum((tokens.response_value[i] * tokens.entropy[i][inside[i]]).sum() for i in range(len(inside)))
    surrogate = clipped_surrogate(tokens, update_of(tokens, NoMethod()).clip)[inside].mean()
    expected = surrogate - 0.3 * bonus / inside.sum()
    assert_same_gradient(mini_batch_loss(AER(), tokens, alpha=0.3), expected, logits)


def test_limiting_cases():
    """No term with tau = 0, and none for a prompt whose accuracy is rho or more."""
    _, tokens = random_batch()
    tracker = AER(tau=0.0).tracker()
    for step, entropy in enumerate([0.5, 0.1, 0.0], start=1):
        tracker.observe(rollouts(entropy, step))
    assert tracker.signal(4) == {"alpha": 0.0}
    assert mini_batch_loss(AER(), tokens, alpha=0.0) == mini_batch_loss(NoMethod(), tokens)
    easy = replace(tokens, response_value=torch.zeros(6))
    assert mini_batch_loss(AER(), easy, alpha=0.5) == mini_batch_loss(NoMethod(), tokens)
    assert mini_batch_loss(AER(), tokens, alpha=0.5) != mini_batch_loss(NoMethod(), tokens)


def test_a_resumed_run_continues_where_it_was():
    whole, first, second = AER().tracker(), AER().tracker(), AER().tracker()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for step, entropy in enumerate((1.0, 0.1), start=1):
        whole.observe(rollouts(entropy, step))
        first.observe(rollouts(entropy, step))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.signal(3) == first.signal(3) == {"alpha": pytest.approx(0.0015, rel=1e-12)}
    assert second.observe(rollouts(0.3, 3)) == whole.observe(rollouts(0.3, 3))
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"alpha": 0.1},
        {"alpha": -0.1, "first_entropy": 1.0},
        {"alpha": float("inf"), "first_entropy": 1.0},
        {"alpha": 0.1, "first_entropy": "1"},
        {"alpha": None, "first_entropy": None},
        {"alpha": 0.1, "first_entropy": 1.0, "more": 0.0},
    ],
)
def test_a_state_that_no_run_has_written_is_refused(state):
    tracker = AER().tracker()
    with pytest.raises(ValueError, match="aer state .* must be alpha"):
        tracker.load_state_dict(state)
    assert tracker.state_dict() == {"alpha": 0.0, "first_entropy": None}


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(AER(), alpha=0.7)
    assert_any_split([METHODS["entropy_advantage"](), AER()], alpha=0.7)


def test_one_number_of_a_response_in_a_run():
    class Other(AER):
        pass

    with pytest.raises(ValueError, match="each bring a number of every response: choose one of them"):
        MethodStack([AER(), Other()])


@pytest.mark.parametrize("field, value", [("tau", -0.1), ("rho", 0), ("rho", 1.5), ("eta", float("nan"))])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        AER(**{field: value})
