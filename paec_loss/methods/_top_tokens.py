"""The tokens of a mini-batch with the largest values, which can be found again in each of its micro-batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paec_loss import _torch as torch
from paec_loss.batch import Tokens, Update
from paec_loss.randomness import token_uniform

if TYPE_CHECKING:
    from torch import Tensor


def count_of(share: float, number: int) -> int:
    """ceil(share * number), robust to rounding: 0.07 * 100 is slightly above 7, and must not give 8."""
    return math.ceil(share * number * (1 - 1e-12))


def floor_of(share: float, number: int) -> int:
    """floor(share * number), robust to rounding: 0.29 * 100 is slightly below 29, and must not give 28."""
    return int(share * number * (1 + 1e-12))


@dataclass(frozen=True)
class TopTokens:
    """The selected tokens, stored by place: their number is exact, whatever the rounding of a later forward pass."""

    response_id: Tensor
    """[B] int64, numbers of the responses that have tokens."""
    chosen: Tensor
    """[B, R] bool."""

    @classmethod
    def of(cls, values: Tensor, batch: Tokens, update: Update, count: int) -> TopTokens:
        """The `count` response tokens of a mini-batch with the largest values [B, R]; ties are broken at random."""
        lots = token_uniform(update.seed, update.step, batch.response_id, batch.response_mask.shape[1])
        by_lot = batch.masked(lots).argsort()
        order = by_lot[batch.masked(values)[by_lot].argsort(descending=True, stable=True)]
        places = torch.nonzero(batch.response_mask)[order[:count]]
        chosen = torch.zeros_like(batch.response_mask)
        chosen[places[:, 0], places[:, 1]] = True
        real = batch.response_mask.any(-1)  # a padding row may have the number of a response
        return cls(batch.response_id[real], chosen[real])

    def among(self, tokens: Tokens) -> Tensor:
        """[B, R] bool, which of these tokens are chosen; a response that is not in the mini-batch has none."""
        found = torch.zeros_like(tokens.response_mask)
        same = tokens.response_id[:, None] == self.response_id.to(found.device)
        mine, theirs = torch.nonzero(same, as_tuple=True)
        length = min(found.shape[1], self.chosen.shape[1])
        found[mine, :length] = self.chosen.to(found.device)[theirs, :length]
        return found & tokens.response_mask
