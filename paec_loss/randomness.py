"""Random numbers tied to a token: without state or order, so no split of a batch can change them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paec_loss import _torch as torch

if TYPE_CHECKING:
    from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def token_uniform(seed: int, step: int, response_id: Tensor, length: int) -> Tensor:
    """Uniform numbers in [0, 1) for every token: [B, length] float64, a function of (seed, step, response_id, place).

    Args:
        seed: the run's seed.
        step: trainer step.
        response_id: [B] int64 numbers of the responses, the same wherever a response is processed.
        length: R; token places are 0 .. R - 1.

    The numbers are 53 bits of SplitMix64's output function (Steele et al. 2014), applied once for every key.
    """
    place = torch.arange(length, device=response_id.device, dtype=torch.int64)
    state = _mix(_mix(torch.full_like(response_id, seed)) + torch.full_like(response_id, step))
    state = _mix(state + response_id)
    state = _mix(state[:, None] + place)
    return _shift(state, 11).double() * 2.0**-53


def _mix(state: Tensor) -> Tensor:
    state = state + _GOLDEN
    state = (state ^ _shift(state, 30)) * _MIX1
    state = (state ^ _shift(state, 27)) * _MIX2
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    """Logical shift to the right (torch's is arithmetic)."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
