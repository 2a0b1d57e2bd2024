"""Unlikeliness reward: of the right responses of a group, the unlikely ones are worth more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import between, choice
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Unlikeliness(Method):
    """Reward R (1 - beta rank / G), rank 0 ... G - 1 by the response's log-prob, 0 for the least likely of the group.

    The log-prob is that of the response, a sum over its tokens, so short responses tend to be likely; with rank_by=mean
    it is the mean per token. Ties keep their order in the group. The reward replaces the graded one and is passed to
    the advantage estimator; a reward of 0 stays 0. Prompts to which all responses are right are learnt from as well,
    but not with base=dapo, which leaves them out. The method was published with two epochs over the batch
    (actor_rollout_ref.actor.ppo_epochs=2).
    """

    paper: ClassVar[str] = "Rewarding the Unlikely, arXiv 2506.02355"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: the ranks of its log-probs"
    released: ClassVar[str] = (
        "the released code ranks by the mean log-prob per token (rank_by=mean), the text by the probability of the "
        "response, as here"
    )

    beta: float = between(0, 1, 0.25, "strength of the discount by rank; 0 leaves the rewards unchanged")
    rank_by: str = choice(("sum", "mean"), "sum", "log-prob of a response: the sum over its tokens, or their mean")

    least_responses = 2

    def rewards(self, rollouts: Rollouts) -> Tensor:
        per_response = rollouts.response_sum if self.rank_by == "sum" else rollouts.response_mean
        log_prob = per_response(rollouts.log_prob)
        factor = torch.ones_like(log_prob)
        for group in rollouts.groups():
            ordered = group[log_prob[group].argsort(stable=True)]
            rank = torch.arange(len(group), dtype=factor.dtype, device=factor.device)
            factor[ordered] = 1 - self.beta * rank / len(group)
        return (rollouts.rewards * factor).to(rollouts.rewards.dtype)
