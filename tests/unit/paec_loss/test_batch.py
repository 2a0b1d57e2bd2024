"""Rollouts: groups without padding rows, statistics that never read padding, and parts joined to one."""

from __future__ import annotations

import torch
from batches import rollouts_of

from paec_loss.batch import joined


def test_padding_is_in_no_group_and_no_mean():
    rollouts = rollouts_of([1.0, 0.0, 0.0, 1.0], [7, 2, 7, 2], [[-1.0, -3.0], [], [-5.0], [-2.0]])
    assert [group.tolist() for group in rollouts.groups()] == [[3], [0, 2]]
    assert rollouts.response_mean(rollouts.log_prob).tolist() == [-2.0, 0.0, -5.0, -2.0]
    assert rollouts.mean(rollouts.log_prob) == -11 / 4
    assert rollouts.lengths.tolist() == [2, 0, 1, 1]


def test_joined_parts_keep_every_row():
    first = rollouts_of(
        [1.0], [0], [[-1.0, -2.0]], token_texts=[["a", " b"]], text=["a b"], answer_ids=[4], resampled=[True]
    )
    second = rollouts_of([0.0], [1], [[-3.0]], token_texts=[["c"]], text=["c"], answer_ids=[5], resampled=[False])
    both = joined([first, second])
    assert both.token_texts == [["a", " b"], ["c"]]
    assert both.text == ["a b", "c"]
    assert both.answer_ids.tolist() == [4, 5]
    assert both.resampled.tolist() == [True, False]
    assert both.response_mask.tolist() == [[True, True], [True, False]]
    assert both.log_prob[both.response_mask].tolist() == [-1.0, -2.0, -3.0]
    assert both.step == 3


def test_values_at_tokens():
    rollouts = rollouts_of([1.0, 0.0, 0.0], [0, 0, 0], [[-1.0, -1.0], [], [-1.0]])
    each = torch.tensor([5.0, 6.0, 7.0])
    assert rollouts.at_tokens(each).tolist() == [[5, 5], [0, 0], [7, 0]]
    assert rollouts.at_tokens(torch.full((3, 2), torch.nan).masked_fill(rollouts.response_mask, 2)).sum() == 6
    assert rollouts.at_tokens(each).dtype == rollouts.advantages.dtype == torch.float64
