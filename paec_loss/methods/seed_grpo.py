"""SEED-GRPO: smaller updates on prompts whose answers disagree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import choice, non_negative
from paec_loss.method import Method
from paec_loss.semantic import semantic_entropy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SEEDGRPO(Method):
    """(R - mean R) / (1 + alpha SE / ln G), SE the semantic entropy of the group's G answers, nats.

    SE = -sum_C P(C) ln P(C) over the classes C of equivalent answers; a response without an answer has its own
    class. With weights=probability, P(C) is proportional to the summed probability of C's responses: the shortest
    response of a group can have nearly all of it. The advantage is not divided by a deviation.
    """

    paper: ClassVar[str] = "SEED-GRPO, arXiv 2505.12346"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: mean reward and semantic entropy"
    released: ClassVar[str] = (
        "the text leaves f(alpha SE / SE_max) open (linear, exponential or focal) and estimates SE by -mean_C ln P(C); "
        "f and alpha here are a third party's, SE is the entropy itself"
    )
    needs = {"answer_ids"}
    own_advantages: ClassVar[bool] = True

    alpha: float = non_negative(0.0417, "weight of the semantic entropy; 0 is Dr.GRPO's R - mean R")
    weights: str = choice(
        ("probability", "counts"), "probability", "weight of a class: its responses' probability, or their number"
    )

    def advantages(self, rollouts: Rollouts) -> Tensor:
        rewards = rollouts.rewards.double()
        log_prob = torch.where(rollouts.response_mask, rollouts.log_prob, 0.0).sum(-1, dtype=torch.float64)
        result = torch.zeros_like(rewards)
        for group in rollouts.groups():
            if len(group) > 1:
                weights = log_prob[group] if self.weights == "probability" else None
                uncertainty = semantic_entropy(rollouts.answer_ids[group], weights) / math.log(len(group))
                result[group] = (rewards[group] - rewards[group].mean()) / (1 + self.alpha * uncertainty)
        return rollouts.at_tokens(result)
