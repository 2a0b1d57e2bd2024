"""Overlong filtering: nothing is learnt from responses that were cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OverlongFilter(Method):
    """A, but 0 for responses that were cut off at the maximum length.

    Cut off is a response as long as data.max_response_length. Its reward still counts in its group's baseline, and its
    tokens in the mean of the loss and in other methods' loss terms.
    """

    paper: ClassVar[str] = "DAPO, arXiv 2503.14476, Section 3.4 (overlong filtering)"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    released: ClassVar[str] = (
        "no code by the authors was found; TRL's mask_truncated_completions also leaves the tokens out of the mean of "
        "the loss, and calls cut off what does not end with the end of sequence"
    )

    def advantages(self, rollouts: Rollouts) -> Tensor:
        return torch.where(rollouts.cut[:, None], 0.0, rollouts.advantages)
