"""Jagged tensors: rows selected, cut, padded and their shapes listed without torch's slow split into rows."""

from __future__ import annotations

from typing import Any

import torch


def is_jagged(value: Any) -> bool:
    """Whether `value` is a nested tensor [B, j, ...] whose rows lie one after the other."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.jagged:
        return False
    return value._ragged_idx == 1 and value.lengths() is None


def selected_rows(nested: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The rows `places` [R] of a jagged tensor [B, j, ...], as a new one."""
    offsets, values = nested.offsets(), nested.values()
    places = places.to(offsets.device)
    return cut(values, offsets[places], offsets.diff()[places])


def cut(values: torch.Tensor, first: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[T, ...] -> jagged [B, j, ...]: row b is the `lengths[b]` values from `first[b]` on."""
    joined = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    shift = torch.repeat_interleave(first - joined[:-1], lengths)
    rows = values[shift + torch.arange(len(shift), device=shift.device)]
    # Padding asks for the largest length, and takes all of the values for it where a tensor does not know it.
    known = {"min_seqlen": int(lengths.min()), "max_seqlen": int(lengths.max())}
    return torch.nested.nested_tensor_from_jagged(rows, joined, **known)


def cut_and_padded(values: torch.Tensor, first: torch.Tensor, lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """[T, ...] -> [B, longest, ...]: row b is the `lengths[b]` values from `first[b]` on, then zeros."""
    columns = torch.arange(longest, device=values.device)
    inside = columns < lengths[:, None]
    places = first[:, None] + columns * inside
    # In its gradient every value has one summand that is not zero: exact in any order.
    rows = values.index_select(0, places.flatten()).unflatten(0, places.shape)
    return torch.where(inside.reshape(*inside.shape, *[1] * (values.ndim - 1)), rows, values.new_zeros(()))


def schema(nested: torch.Tensor) -> dict[str, Any]:
    """What TransferQueue's `extract_field_schema` says of a jagged field."""
    values = nested.values()
    shapes = [(length, *values.shape[1:]) for length in nested.offsets().diff().tolist()]
    return {
        "dtype": values.dtype,
        "shape": torch.Size(shapes[0]),
        "is_nested": True,
        "is_non_tensor": False,
        "per_sample_shapes": shapes,
    }
