"""Jagged tensors: rows selected and shapes listed without torch's slow split into rows."""

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
    lengths = offsets.diff()[places]
    joined = torch.cat([offsets.new_zeros(1), lengths.cumsum(0)])
    first = torch.repeat_interleave(offsets[places] - joined[:-1], lengths)
    rows = values[first + torch.arange(len(first), device=first.device)]
    # Padding asks for the largest length, and takes all of the values for it where a tensor does not know it.
    known = {"min_seqlen": int(lengths.min()), "max_seqlen": int(lengths.max())}
    return torch.nested.nested_tensor_from_jagged(rows, joined, **known)


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
