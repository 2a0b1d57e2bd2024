"""The bound on advantages: by hand, token by token, after another method."""

from __future__ import annotations

import pytest
import torch
from batches import assert_by_group, random_rollouts, rollouts_of

from paec_loss.methods import METHODS
from paec_loss.methods.adv_clip import AdvClip
from paec_loss.methods.w_reinforce import WReinforce
from paec_loss.stack import MethodStack


def test_equals_values_computed_by_hand():
    rollouts = rollouts_of([0.0] * 3, [0] * 3, [[-1.0], [-1.0, -1.0], [-1.0]], advantages=[-2.2, 0.4, 3.0])
    assert AdvClip().advantages(rollouts).tolist() == [[-1.0, 0.0], [0.4, 0.4], [1.0, 0.0]]
    assert AdvClip(bound=2.5).advantages(rollouts)[:, 0].tolist() == [-2.2, 0.4, 2.5]
    assert torch.equal(AdvClip(bound=3).advantages(rollouts), rollouts.advantages)


def test_against_the_definition():
    rollouts = random_rollouts()
    got = AdvClip(bound=0.7).advantages(rollouts)
    for row, before in zip(got.tolist(), rollouts.advantages.tolist(), strict=True):
        assert row == [min(max(value, -0.7), 0.7) for value in before]
    assert (got != rollouts.advantages).any()


def test_after_another_method():
    """w_reinforce makes 3 of 30, the bound 2 of 3; the other way round it is 0.2."""
    rollouts = rollouts_of([0.0], [0], [[-1.0]], advantages=[30.0])
    found = [
        MethodStack(order).advantages(rollouts).item()
        for order in ([WReinforce(), AdvClip(bound=2)], [AdvClip(bound=2), WReinforce()])
    ]
    assert found == pytest.approx([2.0, 0.2], rel=1e-12)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_surrogate_has_no_larger_advantage(name):
    """Behind any method; the pair is refused where that one acts in the update, and so after the bound."""
    before = METHODS[name]()
    if before.overrides("token_advantages"):
        with pytest.raises(ValueError, match=f"^adv_clip acts on the advantages before the update, and {name} in it"):
            MethodStack([before, AdvClip()])
        MethodStack([AdvClip(), before])
        return
    if name == "adv_clip" or not before.overrides("advantages"):
        return
    if name == "pass_at_k":
        before = METHODS[name](k=1)
    found = MethodStack([before, AdvClip(bound=0.01)]).advantages(random_rollouts())
    assert found.abs().max() == 0.01


def test_every_group_by_itself():
    assert_by_group(AdvClip(bound=0.5))


@pytest.mark.parametrize("value", [0, -1, float("inf")])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.bound="):
        AdvClip(bound=value)
