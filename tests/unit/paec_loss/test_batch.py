"""Groups without padding rows, statistics that never read padding, parts joined to one, a ratio to itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import hand_batch, random_batch, random_rollouts, rollouts_of

from paec_loss.batch import joined


def test_padding_is_in_no_group_and_no_mean():
    rollouts = rollouts_of([1.0, 0.0, 0.0, 1.0], [7, 2, 7, 2], [[-1.0, -3.0], [], [-5.0], [-2.0]])
    assert [group.tolist() for group in rollouts.groups()] == [[3], [0, 2]]
    assert rollouts.response_mean(rollouts.log_prob).tolist() == [-2.0, 0.0, -5.0, -2.0]
    assert rollouts.mean(rollouts.log_prob) == -11 / 4
    assert rollouts.lengths.tolist() == rollouts.ends.tolist() == [2, 0, 1, 1]
    assert rollouts_of([1.0], [0], [[]]).ends.tolist() == [0]


def test_a_group_is_in_the_order_of_its_places():
    """Without places, the rows are in order; a row without tokens has none."""
    rollouts = rollouts_of([0.0] * 6, [5, 2, 5, 2, 5, 2], [[-1.0], [], [-1.0], [-1.0], [-1.0], [-1.0]])
    assert rollouts.place.tolist() == [0, 0, 1, 0, 2, 1]
    assert [group.tolist() for group in rollouts.groups()] == [[3, 5], [0, 2, 4]]
    moved = replace(rollouts, place=torch.tensor([2, 0, 1, 2, 0, 1]))
    assert [group.tolist() for group in moved.groups()] == [[5, 3], [4, 2, 0]]


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
    assert both.rewards.tolist() == [1.0, 0.0] and both.tracker_signal == {}
    assert both.cut.tolist() == [False, False]
    assert joined([replace(part, max_response_length=2) for part in (first, second)]).cut.tolist() == [True, False]
    assert both.response_mask.tolist() == [[True, True], [True, False]]
    assert both.log_prob[both.response_mask].tolist() == [-1.0, -2.0, -3.0]
    assert both.step == 3


def test_values_at_tokens():
    rollouts = rollouts_of([1.0, 0.0, 0.0], [0, 0, 0], [[-1.0, -1.0], [], [-1.0]])
    each = torch.tensor([5.0, 6.0, 7.0])
    assert rollouts.at_tokens(each).tolist() == [[5, 5], [0, 0], [7, 0]]
    assert rollouts.at_tokens(torch.full((3, 2), torch.nan).masked_fill(rollouts.response_mask, 2)).sum() == 6
    assert rollouts.at_tokens(each).dtype == rollouts.advantages.dtype == torch.float64


def test_the_mean_of_a_response_has_a_gradient():
    tokens = hand_batch([[-1.0, -3.0], [-5.0]], [[0.0, 0.0], [0.0]])
    mean = tokens.response_mean(tokens.log_prob)
    assert mean.tolist() == [-2.0, -5.0]
    (gradient,) = torch.autograd.grad(mean[0], tokens.log_prob)
    assert gradient.tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_the_ratio_of_a_token_to_itself_is_one_with_the_gradient_of_its_log_prob():
    tokens = hand_batch([[-1.0, -30.0]], [[0.0, 0.0]])
    assert tokens.self_ratio.tolist() == [[1.0, 1.0]]
    (gradient,) = torch.autograd.grad((tokens.self_ratio * torch.tensor([[2.0, -3.0]])).sum(), tokens.log_prob)
    assert gradient.tolist() == [[2.0, -3.0]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.uint8])
def test_a_mask_is_bool(dtype):
    """Tensors of 0 and 1 as an index would take the first two responses instead of tokens."""
    for seen in (random_batch()[1], random_rollouts()):
        with pytest.raises(ValueError, match=f"^response_mask has dtype {dtype}: must be bool; write response_mask"):
            replace(seen, response_mask=seen.response_mask.to(dtype))


def test_every_field_has_its_shape():
    """Advantages [B] of B responses of B tokens would be added along the wrong axis."""
    tokens, rollouts = hand_batch([[-1.0, -2.0], [-3.0]], [[1.0, 1.0], [2.0]]), random_rollouts()
    flat, wide, longer = torch.zeros(2), torch.zeros(2, 2), torch.zeros(2, 3)
    for name in ("advantages", "old_log_prob", "ref_log_prob"):
        for wrong in (flat, longer):
            shape = list(wrong.shape)
            with pytest.raises(ValueError) as raised:
                replace(tokens, **{name: wrong})
            assert str(raised.value) == f"{name} has shape {shape}: must be [B, R], here [2, 2] as in response_mask"
    for name in ("response_id", "response_value"):
        with pytest.raises(ValueError) as raised:
            replace(tokens, **{name: wide})
        assert str(raised.value) == f"{name} has shape [2, 2]: must be [B], here [2] as in response_mask"
    for name in ("group_id", "rewards", "answer_ids", "resampled", "place", "tokens", "advantages"):
        with pytest.raises(ValueError, match=rf"^{name} has shape \[3\]: must be \[B"):
            replace(rollouts, **{name: torch.zeros(3)})
    for seen in (tokens, rollouts):
        with pytest.raises(ValueError, match=r"^statistics.log_prob has shape \[2\]: must be \[B, R\]"):
            replace(seen, statistics=seen.statistics.map(lambda values: values[:2, 0]))
    with pytest.raises(ValueError, match=r"^response_mask has shape \[2\]: must be \[B, R\], responses by tokens"):
        replace(tokens, response_mask=torch.ones(2, dtype=torch.bool))


def test_what_must_have_no_gradient():
    """An old log-prob with one makes the gradient of the ratio exactly 0."""
    _, tokens = random_batch()
    for name in ("old_log_prob", "advantages", "ref_log_prob"):
        with pytest.raises(ValueError, match=rf"^{name} has a gradient: write {name}.detach\(\)$"):
            replace(tokens, **{name: tokens.log_prob})
        assert torch.equal(vars(replace(tokens, **{name: tokens.log_prob.detach()}))[name], tokens.log_prob)
