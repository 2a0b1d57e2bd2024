"""Jagged tensors; that selected rows are verl's is in test_patches, the schema in test_queue_shapes."""

from __future__ import annotations

import torch

from recipe.paec.actor import jagged


def nested(offsets: list[int]) -> torch.Tensor:
    return torch.nested.nested_tensor_from_jagged(torch.arange(6.0), torch.tensor(offsets))


def test_what_is_jagged():
    assert jagged.is_jagged(nested([0, 2, 6]))
    assert not jagged.is_jagged(torch.arange(6.0)) and not jagged.is_jagged([1, 2]) and not jagged.is_jagged(None)
    assert not jagged.is_jagged(torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]))
    with_gaps = torch.nested.nested_tensor_from_jagged(torch.arange(6.0), torch.tensor([0, 3, 6]), torch.tensor([2, 1]))
    assert not jagged.is_jagged(with_gaps)


def test_rows_are_selected_in_the_order_asked_for():
    found = jagged.selected_rows(nested([0, 2, 2, 6]), torch.tensor([2, 0, 1]))
    assert [row.tolist() for row in found.unbind()] == [[2, 3, 4, 5], [0, 1], []]
    assert (found._min_seqlen, found._max_seqlen) == (0, 4)
    found.values().zero_()
    assert nested([0, 2, 2, 6]).values().sum() == 15


def test_a_schema():
    assert jagged.schema(nested([0, 2, 2, 6])) == {
        "dtype": torch.float32,
        "shape": torch.Size([2]),
        "is_nested": True,
        "is_non_tensor": False,
        "per_sample_shapes": [(2,), (0,), (4,)],
    }
