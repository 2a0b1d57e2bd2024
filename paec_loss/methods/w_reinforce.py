"""W-REINFORCE: positive samples have a smaller weight than negative ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import non_negative
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class WReinforce(Method):
    """positive_weight * A where A > 0, A elsewhere. With positive_weight=0 it is NSR: negative samples only."""

    paper: ClassVar[str] = "The Surprising Effectiveness of Negative Reinforcement (W-REINFORCE), arXiv 2506.01347"
    on_policy: ClassVar[str] = "the same"
    released: ClassVar[str] = (
        "the published method is REINFORCE with rewards +-1; here the estimator is the run's, and a sample is positive "
        "if its advantage is"
    )

    positive_weight: float = non_negative(0.1, "factor of positive advantages")

    def advantages(self, rollouts: Rollouts) -> Tensor:
        advantages = rollouts.advantages
        return torch.where(advantages > 0, self.positive_weight * advantages, advantages)
