"""TTRL: the most frequent answer of the group serves as the label; no true labels are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import whole
from paec_loss.method import Method
from paec_loss.semantic import largest_class

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TTRL(Method):
    """Reward 1 for the responses with the most frequent answer of their group, 0 for all others.

    Among equally frequent answers, the one that comes first in the group counts. A response without an answer has no
    vote and the reward 0. The reward replaces the graded one and is passed to the advantage estimator. With
    also=ettrl_advantage this is ETTRL without its tree rollout. All responses vote and are trained on; as published, 64
    vote and 32 of them are trained on.
    """

    paper: ClassVar[str] = "TTRL, arXiv 2504.16084"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: the number of its responses in each class"
    released: ClassVar[str] = (
        "the released code counts answers as strings after a simplification, grades against the most frequent one, and "
        "also takes an answer that only one response gives (min_votes=1); here the graders decide which answers are "
        "equal"
    )
    needs = {"answer_ids"}
    own_rewards: ClassVar[bool] = True
    binary_rewards = True

    min_votes: int = whole(2, "votes that an answer needs to count; a group without such an answer has no reward")

    @property
    def least_responses(self) -> int:
        return max(2, self.min_votes)

    def rewards(self, rollouts: Rollouts) -> Tensor:
        result = torch.zeros_like(rollouts.rewards)
        for group in rollouts.groups():
            chosen = largest_class(rollouts.answer_ids[group])
            if chosen.sum() >= self.min_votes:
                result[group] = chosen.to(result.dtype)
        return result
