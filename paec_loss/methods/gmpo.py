"""GMPO: the geometric mean of a response's ratios, each clipped before the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Tokens, Update
from paec_loss.fields import non_negative
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GMPO(Method):
    """Loss -A exp(mean_t x_t), x = min(log r, high) where A > 0, max(log r, -low) elsewhere; one value per response.

    A is the mean advantage of the response's tokens. Every token of a response has this loss, so
    actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean gives the published loss, the mean over responses. Here
    the aggregation is the run's, so that two runs differ only in the method; with the default, token-mean, a response
    counts by its length.
    """

    paper: ClassVar[str] = "GMPO, arXiv 2507.20673"
    on_policy: ClassVar[str] = "plain policy gradient"
    released: ClassVar[str] = (
        "verl's version takes low and high from the run's clip range, does not bound log-ratios (here within +-20), "
        "always takes the mean over responses, and weights a response by the geometric mean of its rollout correction, "
        "here each token by its own"
    )

    uses_clip: ClassVar[bool] = False

    low: float = non_negative(0.4, "lower clip range: log-ratios are clipped at -low where A <= 0, nats")
    high: float = non_negative(0.4, "upper clip range: log-ratios are clipped at high where A > 0, nats")

    def policy_loss(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        log_ratio, advantages = tokens.log_ratio, tokens.advantages
        clipped = torch.where(advantages > 0, log_ratio.clamp(max=self.high), log_ratio.clamp(min=-self.low))
        response = -tokens.response_mean(advantages) * tokens.response_mean(clipped).exp()
        return response[:, None].to(log_ratio.dtype).expand_as(log_ratio)
