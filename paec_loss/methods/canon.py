"""CANON: responses of high and of low entropy (or length), each compared with the other half of the group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import between, choice, non_negative
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor

WARM_UP, CYCLE, LARGEST = 30, 40, 0.6
"""schedule=cosine: steps of the linear warm-up and of each later cycle (published: three cycles), largest 1 - mu."""


@dataclass(frozen=True)
class CANON(Method):
    """mu (R - mean R of the other half) + (1 - mu) (R - mean R of its own half), without division by a deviation.

    A group is split into its floor(G / 2) responses of lowest mean token entropy (metric=length: with the fewest
    tokens) and the rest; ties keep their order in the group. A group of one has no advantage. With mu = 1/2 and even G
    this is Dr.GRPO's R - mean R. In the comparison between the halves, the rewards of the unwanted half (low entropy,
    or long) are multiplied by alpha. schedule=accuracy: mu is the mean reward of the step, for rewards 0 and 1;
    schedule=cosine: 1 - mu rises to 0.6 in 30 steps, then falls to 0 along a cosine in each cycle of 40.
    """

    paper: ClassVar[str] = "CANON, arXiv 2509.23962, Eq. 5 (mu)"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: the split by entropy and the mean rewards"
    released: ClassVar[str] = (
        "the released code also divides by the longest response length (Dr.GRPO's constant, a matter of "
        "loss_agg_mode), gives a group of one its reward (here 0), and has a second cosine, from 0.4 to 1"
    )
    own_advantages: ClassVar[bool] = True

    mu: float = between(
        0, 1, 1.0, "weight of the comparison between the halves, 1 - mu within them; used with schedule=constant"
    )
    metric: str = choice(("entropy", "length"), "entropy", "what splits a group")
    alpha: float = non_negative(1.0, "factor of the unwanted half's rewards; published: 0.9 with metric=length")
    schedule: str = choice(("constant", "accuracy", "cosine"), "constant", "where mu comes from")

    least_responses = 2

    @property
    def binary_rewards(self) -> bool:
        return self.schedule == "accuracy"

    def advantages(self, rollouts: Rollouts) -> Tensor:
        rewards, mu = rollouts.rewards.double(), self._mu(rollouts)
        by_length = self.metric == "length"
        metric = rollouts.lengths if by_length else rollouts.response_mean(rollouts.entropy)
        result = torch.zeros_like(rewards)
        for group in rollouts.groups():
            if len(group) > 1:
                ordered = group[metric[group].argsort(stable=True)]
                low, high = ordered[: len(group) // 2], ordered[len(group) // 2 :]
                weighted = rewards.clone()
                weighted[high if by_length else low] *= self.alpha
                for own, other in ((low, high), (high, low)):
                    between_halves = weighted[own] - weighted[other].mean()
                    result[own] = mu * between_halves + (1 - mu) * (rewards[own] - rewards[own].mean())
        return rollouts.at_tokens(result)

    def _mu(self, rollouts: Rollouts) -> float:
        if self.schedule == "accuracy":
            real = rollouts.lengths > 0
            accuracy = rollouts.rewards[real].double().mean().item() if real.any() else self.mu
            if not 0 <= accuracy <= 1:
                raise ValueError(
                    f"method.schedule=accuracy: the mean reward of step {rollouts.step} is {accuracy:.6g}, which is no "
                    "accuracy: grade with 0 and 1, or choose another schedule"
                )
            return accuracy
        return 1 - _cosine(rollouts.step) if self.schedule == "cosine" else self.mu


def _cosine(step: int) -> float:
    """1 - mu in a trainer step (from 1)."""
    if step < WARM_UP:
        return LARGEST * (step + 1) / WARM_UP
    place = (step - WARM_UP) % CYCLE
    return LARGEST * (1 + math.cos(math.pi * place / CYCLE)) / 2
