"""CANON: responses of high and of low entropy, each compared with the other half of the group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import between
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CANON(Method):
    """mu (R - mean R of the other half) + (1 - mu) (R - mean R of the own half), no division by a deviation.

    The halves of a group: its floor(G / 2) responses of lowest mean token entropy, and the rest; responses of equal
    entropy in their order in the batch. A group of one has no advantage. With mu = 1/2 and even G it is Dr.GRPO's
    R - mean R.
    """

    paper: ClassVar[str] = "CANON, arXiv 2509.23962, Eq. 5 (mu)"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: the split by entropy and the mean rewards"
    released: ClassVar[str] = (
        "the released code also divides by the longest response length (Dr.GRPO's constant, a matter of "
        "loss_agg_mode), and gives a group of one its reward; here 0"
    )
    own_advantages: ClassVar[bool] = True

    mu: float = between(0, 1, 1.0, "weight of the comparison between the halves; 1 - mu is that within them")

    def advantages(self, rollouts: Rollouts) -> Tensor:
        entropy, rewards = rollouts.response_mean(rollouts.entropy), rollouts.rewards.double()
        result = torch.zeros_like(rewards)
        for group in rollouts.groups():
            if len(group) > 1:
                ordered = group[entropy[group].argsort(stable=True)]
                low, high = ordered[: len(group) // 2], ordered[len(group) // 2 :]
                for own, other in ((low, high), (high, low)):
                    baseline = self.mu * rewards[other].mean() + (1 - self.mu) * rewards[own].mean()
                    result[own] = rewards[own] - baseline
        return rollouts.at_tokens(result)
