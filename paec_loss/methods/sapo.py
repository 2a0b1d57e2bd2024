"""SAPO: a smooth gate in place of the clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Tokens, Update
from paec_loss.fields import positive
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SAPO(Method):
    """Loss -A (4 / tau) sigmoid(tau (r - 1)), tau = tau_positive where A > 0, tau_negative elsewhere.

    With s the sigmoid, the gradient in log p is -A r 4 s (1 - s): the gradient of the unclipped surrogate times a gate
    that is 1 at r = 1 and falls smoothly on both sides. The published loss is the mean over responses of their token
    means (actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean); here the aggregation is the run's, so that two
    runs differ only in the method.
    """

    paper: ClassVar[str] = "SAPO, arXiv 2511.20347"
    on_policy: ClassVar[str] = "plain policy gradient"
    released: ClassVar[str] = "verl's version always takes the mean over responses of their token means"

    uses_clip: ClassVar[bool] = False

    tau_positive: float = positive(1.0, "steepness of the gate where A > 0")
    tau_negative: float = positive(1.05, "steepness of the gate where A <= 0")

    def policy_loss(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        distance = tokens.log_ratio.exp() - 1
        rising, falling = (4 / tau * torch.sigmoid(tau * distance) for tau in (self.tau_positive, self.tau_negative))
        return -tokens.advantages * torch.where(tokens.advantages > 0, rising, falling)
