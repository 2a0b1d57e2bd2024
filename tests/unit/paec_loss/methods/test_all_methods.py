"""What every method must hold: it describes itself, refuses bad fields, and is finite on odd batches."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from batches import (
    CLIP,
    assert_any_split,
    mini_batch_loss,
    random_batch,
    random_rollouts,
    rollout_rows,
    statistics_of,
    with_tools,
)

from paec_loss.batch import Rollouts
from paec_loss.fields import rules_of
from paec_loss.method import Method
from paec_loss.methods import METHODS

METHOD = pytest.mark.parametrize("name", sorted(METHODS))
BY_EXTENT = {"overlong_filter", "overlong_penalty"}
"""Methods for which what tools wrote counts as a part of the response, because the limit of its length counts it."""


def rollouts_at(step: int, equal: bool = False) -> Rollouts:
    """Random responses of a step; with `equal` their rewards are all 1."""
    rollouts = replace(random_rollouts(step), step=step)
    if not equal:
        return rollouts
    return replace(rollouts, rewards=torch.ones_like(rollouts.rewards), advantages=rollouts.advantages * 0)


def signal_of(method: Method, steps: int = 6) -> dict[str, float]:
    """What the method's tracker says after some steps."""
    tracker = method.tracker()
    if tracker is None:
        return {}
    for step in range(1, steps):
        tracker.observe(rollouts_at(step))
    return tracker.signal(steps)


@METHOD
def test_it_describes_itself(name):
    kind = METHODS[name]
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}("), "the formula belongs into the docstring"
    assert kind.paper and kind.on_policy
    if kind().overrides("prepare") or kind().overrides("selection"):
        assert kind.spans != "none", "name the statistic that spans the mini-batch"
    for text in (kind.paper, kind.on_policy, kind.spans, kind.released):
        assert "\n" not in text and text == text.strip() and not text.endswith(".")


@METHOD
def test_its_fields_have_a_meaning_and_a_range(name):
    rules = rules_of(METHODS[name])
    assert [f.name for f in fields(METHODS[name])] == list(rules)
    for field, rule in rules.items():
        assert rule["meaning"] and not rule["meaning"].endswith(".")
        wrong = {float: math.nan, int: 0.5, str: "no such option", bool: "yes", tuple: "a string"}[rule["kind"]]
        with pytest.raises(ValueError, match=f"method.{field}="):
            METHODS[name](**{field: wrong})


@METHOD
def test_the_gradient_does_not_depend_on_the_split(name):
    method = METHODS[name]()
    assert_any_split(method, **signal_of(method))


@METHOD
@pytest.mark.parametrize("equal", [False, True])
def test_it_is_finite_on_odd_responses(name, equal):
    """A single token, an empty response, a group whose rewards are all equal; padding holds 1e6 everywhere."""
    method = METHODS[name]()
    rollouts = rollouts_at(7, equal)
    rollouts = replace(rollouts, rewards=method.rewards(rollouts))
    advantages = method.advantages(rollouts)
    assert torch.isfinite(rollouts.rewards).all() and advantages.shape == rollouts.response_mask.shape
    assert torch.isfinite(advantages[rollouts.response_mask]).all()
    logits, tokens = random_batch(7, tuple(rollouts.lengths.tolist()))
    tokens = replace(tokens, advantages=torch.where(tokens.response_mask, advantages, 1e6))
    loss = mini_batch_loss(method, tokens, **signal_of(method))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    assert gradient[~tokens.response_mask].abs().sum() == 0


def on_the_driver(name: str, rollouts: Rollouts) -> list[torch.Tensor]:
    """What the method's hooks make of a step's responses, of those hooks that it has."""
    method = METHODS[name]()
    rollouts = replace(rollouts, tracker_signal=signal_of(method))
    having = [hook for hook in ("rewards", "advantages", "response_value") if method.overrides(hook)]
    return [getattr(method, hook)(rollouts) for hook in having]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "name", [n for n, kind in sorted(METHODS.items()) if any(map(kind().overrides, ("rewards", "advantages")))]
)
def test_the_order_of_the_rows_changes_nothing(name, tied):
    """The trainer sorts a step's responses by length for its ranks; `tied`: equal log-probs, entropies and votes."""
    for seed in range(4):
        rollouts = random_rollouts(seed)
        if tied:
            answers = torch.tensor([0, 0, 1, 0, 2, 1, 0, 1, 0])  # 0 and 1 twice in group 4, 0 twice and 1 in group 1
            statistics = rollouts.statistics.map(lambda x: x * 0)
            rollouts = replace(rollouts, statistics=statistics, answer_ids=answers)
        order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        expected, found = on_the_driver(name, rollouts), on_the_driver(name, rollout_rows(rollouts, order))
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(other, one[order], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [n for n, kind in sorted(METHODS.items()) if kind().overrides("rewards")])
def test_its_rewards_for_equal_grades(name):
    """They differ only in a method that is refused beside DAPO's filter, or whose docstring speaks of it."""
    told = METHODS[name].own_rewards, "base=dapo" in METHODS[name].__doc__
    for grade in (0.0, 1.0):
        rollouts = replace(rollouts_at(6), rewards=torch.full((9,), grade, dtype=torch.float64))
        (rewards,) = on_the_driver(name, rollouts)
        if any(rewards[group].unique().numel() > 1 for group in rollouts.groups()):
            assert any(told)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - BY_EXTENT))
def test_what_tools_wrote_changes_nothing(name):
    """Neither on the driver, at the tokens that the policy wrote, nor in the method's memory."""
    for seed in range(4):
        rollouts = replace(random_rollouts(seed), step=1)
        between, columns = with_tools(rollouts)
        for one, other in zip(on_the_driver(name, rollouts), on_the_driver(name, between), strict=True):
            inside = rollouts.response_mask
            one, other = (one, other) if one.dim() == 1 else (one[inside], other[:, columns][inside])
            torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-14)
        if METHODS[name]().tracker() is not None:
            one, other = (METHODS[name]().tracker().observe(seen) for seen in (rollouts, between))
            assert other == pytest.approx(one, rel=1e-12)


@METHOD
def test_it_is_finite_where_the_policy_is_certain(name):
    """Entropies of 0 and log-probs of 0, as in a policy that has collapsed."""
    method = METHODS[name]()
    logits, tokens = random_batch(3)
    labels = logits.argmax(-1)
    certain = (torch.nn.functional.one_hot(labels, 11) * 1e4).double().requires_grad_()
    statistics = statistics_of(certain, labels)
    assert statistics.entropy.abs().max() == 0
    tokens = replace(tokens, statistics=statistics, old_log_prob=tokens.old_log_prob * 0)
    loss = mini_batch_loss(method, tokens, **signal_of(method))
    (gradient,) = torch.autograd.grad(loss, certain)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()


@METHOD
def test_its_tracker_resumes(name):
    """A tracker that loads the state continues like the one that wrote it; a state with an unknown key is refused."""
    method = METHODS[name]()
    if method.tracker() is None:
        return
    first, second = method.tracker(), method.tracker()
    for step in range(1, 4):
        first.observe(rollouts_at(step))
    second.load_state_dict(first.state_dict())
    for step in range(4, 8):
        assert first.observe(rollouts_at(step)) == second.observe(rollouts_at(step))
        assert first.signal(step) == second.signal(step)
    with pytest.raises(ValueError):
        second.load_state_dict({**first.state_dict(), "strange": 1.0})


@METHOD
def test_its_clip_range_is_one(name):
    clip = METHODS[name]().clip(CLIP)
    assert 0 <= clip.low <= 1 and clip.high >= 0 and clip.dual_clip >= 1


@METHOD
def test_a_loss_of_nan_logits_is_nan(name):
    """At any single token, whatever its advantage: a loss that leaves it out would hide a policy that is broken."""
    method = METHODS[name]()
    signal = signal_of(method)
    logits, tokens = random_batch()
    for row, column in ((0, 2), (2, 6), (3, 0), (5, 3)):
        for sign in (1, -1):
            broken = logits.detach().clone()
            broken[row, column] = math.nan
            statistics = statistics_of(broken, torch.zeros(tokens.response_mask.shape, dtype=torch.int64))
            advantages = sign * torch.where(tokens.response_mask, tokens.advantages.abs(), 1e6)
            seen = replace(tokens, statistics=statistics, advantages=advantages)
            assert mini_batch_loss(method, seen, **signal).isnan()
