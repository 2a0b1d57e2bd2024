"""QAE: the baseline is a quantile of the group's rewards instead of their mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import share
from paec_loss.method import DEVIATION_EPSILON, Method
from paec_loss.methods._top_tokens import count_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class QAE(Method):
    """(R - Q) / (s + 1e-6), Q the `quantile` of the group's rewards, s their sample standard deviation.

    Q is the smallest reward that at least this share of the group does not exceed. With rewards 0 and 1, Q is 0 while
    the share of right responses is at most 1 - quantile; then only the right ones have an advantage. Above that share Q
    is 1, and only the wrong ones have an advantage. A group of one has no advantage.
    """

    paper: ClassVar[str] = "QAE, arXiv 2509.22611"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: quantile and deviation of its rewards"
    released: ClassVar[str] = (
        "the released code interpolates the quantile linearly, so that near a share of 1 - quantile of right responses "
        "it is neither 0 nor 1 and all responses have an advantage; here as in the text"
    )
    own_advantages: ClassVar[bool] = True

    quantile: float = share(0.4, "quantile of the group's rewards; published: 0.6 where the entropy collapses")

    least_responses = 2

    def advantages(self, rollouts: Rollouts) -> Tensor:
        rewards = rollouts.rewards.double()
        result = torch.zeros_like(rewards)
        for group in rollouts.groups():
            if len(group) > 1:
                rank = max(count_of(self.quantile, len(group)), 1)
                baseline = rewards[group].sort().values[rank - 1]
                result[group] = (rewards[group] - baseline) / (rewards[group].std() + DEVIATION_EPSILON)
        return rollouts.at_tokens(result)
