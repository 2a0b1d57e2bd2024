"""Policy-specific hardness weighting: prompts that the policy rarely solves have a larger weight."""

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
class Hardness(Method):
    """(R' - mu) (1 + weight (1 - mu)), R' = 2 R - 1 and mu the group's mean of R'; no division by a deviation.

    Rewards 0 and 1 become -1 and 1, so the factor is between 1 (all right) and 1 + 2 weight (all wrong). A group of
    equal rewards has no advantage. It was published on DAPO, without length normalisation (base=dapo, whose clip range
    is 0.2 and 0.28).
    """

    paper: ClassVar[str] = "Confucius3-Math, arXiv 2506.18330, Section 6.2 (policy-specific hardness weighting)"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: its mean reward"
    released: ClassVar[str] = (
        "no code by the authors found; the text's factor is 1.256 - 0.256 mu, here 1 + 0.256 (1 - mu)"
    )
    own_advantages: ClassVar[bool] = True

    weight: float = non_negative(0.256, "extra weight of hard prompts; 0 is twice Dr.GRPO's R - mean R")

    least_responses = 2

    def advantages(self, rollouts: Rollouts) -> Tensor:
        signed = 2 * rollouts.rewards.double() - 1
        result = torch.zeros_like(signed)
        for group in rollouts.groups():
            mean = signed[group].mean()
            result[group] = (signed[group] - mean) * (1 + self.weight * (1 - mean))
        return rollouts.at_tokens(result)
