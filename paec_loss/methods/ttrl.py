"""TTRL: the answer that most of the group gives counts as the label; no labels are used."""

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

    Of several answers that are as frequent, that of the group's first response with one of them counts. A response
    without an answer has no vote and the reward 0. It replaces the graded reward and is passed to the advantage
    estimator. ETTRL is this with also=ettrl_advantage, without its tree rollout. All responses vote and are trained on;
    published: 64 vote and 32 of them are trained on.
    """

    paper: ClassVar[str] = "TTRL, arXiv 2504.16084"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: the number of its responses in each class"
    released: ClassVar[str] = (
        "the released code counts answers as strings after a simplification, grades against the most frequent "
        "one, and also takes an answer that only one response gives (min_votes=1); here the graders say which answers "
        "are equal"
    )
    needs = {"answer_ids"}

    min_votes: int = whole(2, "votes that an answer needs to count; without one the group has no reward")

    def rewards(self, rollouts: Rollouts) -> Tensor:
        result = torch.zeros_like(rollouts.rewards)
        for group in rollouts.groups():
            chosen = largest_class(rollouts.answer_ids[group])
            if chosen.sum() >= self.min_votes:
                result[group] = chosen.to(result.dtype)
        return result
