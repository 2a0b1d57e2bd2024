"""EMPO: the reward is the share of the group that gives an equivalent answer; no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.method import Method
from paec_loss.semantic import cluster_probabilities

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EMPO(Method):
    """Reward of a response: the share of its group whose answers are equivalent to its own, in [1/G, 1].

    It replaces the graded reward and is passed to the advantage estimator. A response without an answer is a class by
    itself: 1/G. The paper draws G = 7 responses per prompt.
    """

    paper: ClassVar[str] = "EMPO, arXiv 2504.05812"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: the number of its responses in each class"
    released: ClassVar[str] = (
        "the released code gives 0 to a response without an answer and to a group without two equal answers; here both "
        "have 1/G, so that a group of different answers has no advantage either way"
    )
    needs = {"answer_ids"}
    own_rewards: ClassVar[bool] = True

    least_responses = 2

    def rewards(self, rollouts: Rollouts) -> Tensor:
        result = torch.zeros_like(rollouts.rewards)
        for group in rollouts.groups():
            probabilities, index = cluster_probabilities(rollouts.answer_ids[group])
            result[group] = probabilities[index].to(result.dtype)
        return result
