"""HAPO's group average: the baseline is a mean over tokens, so that long responses count for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Rollouts
from paec_loss.fields import positive
from paec_loss.method import DEVIATION_EPSILON, Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class HAPOAverage(Method):
    """(R - mu) / (s + 1e-6), mu and s the mean and population deviation of R over all tokens of the group.

    Every token carries the reward of its response, so a response counts by its length. A group in which some |A| would
    reach `limit` keeps the estimator's advantages, as does a group of one. To combine it with HAPO: method=hapo
    also=hapo_average.
    """

    paper: ClassVar[str] = "HAPO, arXiv 2509.16591, its token-level group average"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: mean and deviation of the reward over its tokens"
    released: ClassVar[str] = "this follows the released code; the text was not compared"
    own_advantages: ClassVar[bool] = True

    limit: float = positive(5.0, "absolute advantage at which a group keeps the estimator's advantages")

    least_responses = 2

    def advantages(self, rollouts: Rollouts) -> Tensor:
        rewards, lengths = rollouts.rewards.double(), rollouts.lengths.double()
        result = rollouts.advantages.clone()
        for group in rollouts.groups():
            weight = lengths[group] / lengths[group].sum()
            centred = rewards[group] - (weight * rewards[group]).sum()
            found = centred / ((weight * centred.square()).sum().sqrt() + DEVIATION_EPSILON)
            if len(group) > 1 and found.abs().max() < self.limit:
                result[group] = found[:, None].to(result.dtype)
        return rollouts.at_tokens(result)
