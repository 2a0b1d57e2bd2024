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
    """(R - mean R) f(SE / ln G), f(x) = 1 / (1 + alpha x), SE the semantic entropy of the group's G answers, nats.

    `factor` selects another f: linear 1 - alpha x, exponential exp(-alpha x), focal (1 - x)^alpha.

    SE = -sum_C P(C) ln P(C) over the classes C of equivalent answers; a response without an answer is a class by
    itself. With weights=probability, P(C) is proportional to the summed probability of C's responses, nearly all of
    which can fall on the shortest response of the group. The advantage is not divided by a deviation.
    """

    paper: ClassVar[str] = "SEED-GRPO, arXiv 2505.12346"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: mean reward and semantic entropy"
    released: ClassVar[str] = (
        "the text leaves f(alpha SE / SE_max) open (linear, exponential or focal) and estimates SE by -mean_C ln P(C); "
        "here the default f and alpha are a third party's, the other forms of f are ours, and SE is the entropy itself"
    )
    needs = {"answer_ids"}
    own_advantages: ClassVar[bool] = True

    alpha: float = non_negative(0.0417, "weight of the semantic entropy; 0 is Dr.GRPO's R - mean R")
    weights: str = choice(
        ("probability", "counts"), "probability", "weight of a class: its responses' probability, or their number"
    )
    factor: str = choice(
        ("inverse", "linear", "exponential", "focal"), "inverse", "how the advantage falls with the semantic entropy"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor == "linear" and self.alpha > 1:
            raise ValueError(
                f"method.alpha={self.alpha!r}: must be at most 1 with method.factor=linear: above it the factor "
                "becomes negative"
            )

    least_responses = 2

    def advantages(self, rollouts: Rollouts) -> Tensor:
        rewards = rollouts.rewards.double()
        log_prob = rollouts.response_sum(rollouts.log_prob)
        result = torch.zeros_like(rewards)
        for group in rollouts.groups():
            if len(group) > 1:
                weights = log_prob[group] if self.weights == "probability" else None
                uncertainty = semantic_entropy(rollouts.answer_ids[group], weights) / math.log(len(group))
                result[group] = (rewards[group] - rewards[group].mean()) * self._factor(uncertainty)
        return rollouts.at_tokens(result)

    def _factor(self, uncertainty: float) -> float:
        """f at SE / ln G, which rounding can leave slightly above 1."""
        if self.factor == "linear":
            return 1 - self.alpha * min(uncertainty, 1.0)
        if self.factor == "exponential":
            return math.exp(-self.alpha * uncertainty)
        if self.factor == "focal":
            return (1 - min(uncertainty, 1.0)) ** self.alpha
        return 1 / (1 + self.alpha * uncertainty)
