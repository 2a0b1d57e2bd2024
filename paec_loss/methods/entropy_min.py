"""Entropy minimisation by reinforcement learning: confidence is the only reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Rollouts
from paec_loss.fields import choice
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EntropyMin(Method):
    """Reward of a response: minus its mean token entropy, or its log-prob, nats, under the policy at the step's start.

    `reward`: mean_entropy is -mean_t H_t, entropy -sum_t H_t, log_prob sum_t log p_t, mean_log_prob its mean over the
    tokens. It replaces the graded reward and is passed to the advantage estimator. To minimise the entropy as a loss
    instead, without a reward: method=entropy_bonus method.coefficient=-0.001 also=spurious also.spurious.kind=none.
    """

    paper: ClassVar[str] = "EM-RL, arXiv 2505.15134 (entropy, log_prob); RENT, arXiv 2505.22660 (mean_entropy)"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the response; only the advantage estimator compares responses"
    released: ClassVar[str] = (
        "the authors' code was not compared; EM-RL was published with a leave-one-out baseline "
        "(algorithm.adv_estimator=rloo)"
    )
    own_rewards: ClassVar[bool] = True

    reward: str = choice(
        ("mean_entropy", "entropy", "log_prob", "mean_log_prob"), "mean_entropy", "what the reward is made of"
    )

    def rewards(self, rollouts: Rollouts) -> Tensor:
        of_tokens = rollouts.log_prob if self.reward.endswith("log_prob") else -rollouts.entropy
        over = rollouts.response_mean if self.reward.startswith("mean") else rollouts.response_sum
        return over(of_tokens).to(rollouts.rewards.dtype)
