"""The texts of the tokens that the policy wrote, and which of them contain a piece of text."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, compress
from typing import TYPE_CHECKING

from paec_loss import _torch as torch

if TYPE_CHECKING:
    from torch import Tensor

    from paec_loss.batch import Rollouts


def own_tokens(rollouts: Rollouts) -> list[tuple[list[str], Tensor]]:
    """The text and the column of every token that the policy wrote, by response: those of tools are left out."""
    inside = rollouts.response_mask.cpu()
    return [
        (list(compress(pieces, here.tolist())), torch.nonzero(here)[:, 0])
        for pieces, here in zip(rollouts.token_texts, inside, strict=True)
    ]


def token_spans(pieces: Sequence[str], spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Tokens [first, stop) that contain each span [start, end) of characters, start < end, of the joined pieces.

    A token that contains only a part of the span belongs to it.
    """
    ends = list(accumulate(map(len, pieces)))
    return [(bisect_right(ends, start), bisect_left(ends, end) + 1) for start, end in spans]
