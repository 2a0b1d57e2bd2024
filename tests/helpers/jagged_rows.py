"""Jagged fields of a batch."""

from __future__ import annotations

import math

import torch

LENGTHS = [3, 0, 5, 1]


def jagged(dtype: torch.dtype = torch.float32, wide: tuple[int, ...] = (), lengths: list[int] = LENGTHS):
    """Rows of those lengths, every number another one (of bools: every other one)."""
    total = sum(lengths)
    values = torch.arange(total * math.prod(wide)).reshape(total, *wide)
    values = values % 2 == 0 if dtype == torch.bool else values.to(dtype)
    return torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, *lengths]).cumsum(0))
