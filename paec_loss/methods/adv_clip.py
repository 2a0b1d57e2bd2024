"""ETTRL's bound on advantages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Rollouts
from paec_loss.fields import positive
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AdvClip(Method):
    """A clipped to [-bound, bound].

    With also=adv_clip it bounds the advantages as the methods before it have changed them. Behind one that changes
    advantages in the update, such as entropy_advantage, it is refused: name it first, and it bounds what that one
    gets. The published bound was not found; 1 is our choice.
    """

    paper: ClassVar[str] = "ETTRL, arXiv 2508.11356, its advantage clipping, without its tree rollout"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    released: ClassVar[str] = "no code by the authors found; this follows a description of the text"

    bounds_advantages: ClassVar[bool] = True

    bound: float = positive(1.0, "largest absolute advantage")

    def advantages(self, rollouts: Rollouts) -> Tensor:
        return rollouts.advantages.clamp(-self.bound, self.bound)
