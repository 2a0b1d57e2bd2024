"""Overlong filter: the vector, the definition, without a limit, beside another method."""

from __future__ import annotations

from dataclasses import replace

import torch
from batches import assert_by_group, random_rollouts, rollouts_of

from paec_loss.methods.adv_clip import AdvClip
from paec_loss.methods.overlong_filter import OverlongFilter
from paec_loss.stack import MethodStack


def test_equals_values_computed_by_hand():
    """Of 4, 3, 1 and no tokens, the first was cut at 4; its reward stays in the baseline: -1 and 2 / 3 remain."""
    rows = [[-1.0] * 4, [-1.0] * 3, [-1.0], []]
    rollouts = rollouts_of([1.0] * 4, [0] * 4, rows, advantages=[2.0, -1.0, 2 / 3, 5.0], max_response_length=4)
    assert rollouts.cut.tolist() == [True, False, False, False]
    assert OverlongFilter().advantages(rollouts).tolist() == [
        [0.0] * 4,
        [-1.0] * 3 + [0.0],
        [2 / 3, 0, 0, 0],
        [0.0] * 4,
    ]


def test_what_tools_wrote_counts_as_length():
    """Four columns of four, one of them a tool's: cut off. A tool's last word is not the response's."""
    rollouts = rollouts_of([1.0] * 2, [0] * 2, [[-1.0] * 4] * 2, advantages=[2.0, -1.0], max_response_length=4)
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    rollouts = replace(rollouts, response_mask=mask)
    assert rollouts.ends.tolist() == [4, 3] and rollouts.cut.tolist() == [True, False]
    assert OverlongFilter().advantages(rollouts)[:, 0].tolist() == [0.0, -1.0]


def test_against_the_definition():
    rollouts = random_rollouts(1)
    found = OverlongFilter().advantages(rollouts)
    cut = [row.sum().item() >= 6 for row in rollouts.response_mask]
    assert sum(cut) == 3 and found.dtype == rollouts.advantages.dtype
    for one, before, gone in zip(found, rollouts.advantages, cut, strict=True):
        assert torch.equal(one, before * 0 if gone else before)


def test_without_a_limit_it_changes_nothing():
    rollouts = replace(random_rollouts(), max_response_length=None)
    assert torch.equal(OverlongFilter().advantages(rollouts), rollouts.advantages)


def test_beside_another_method():
    rollouts = random_rollouts()
    stack = MethodStack([OverlongFilter(), AdvClip(bound=0.5)])
    expected = torch.where(rollouts.cut[:, None], 0.0, rollouts.advantages.clamp(-0.5, 0.5))
    assert torch.equal(stack.advantages(rollouts, {}), expected) and expected.abs().max() == 0.5


def test_every_group_by_itself():
    assert_by_group(OverlongFilter())
