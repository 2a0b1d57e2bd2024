"""GSPO: one importance ratio per response, the geometric mean of its tokens'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Clip, Tokens, Update
from paec_loss.fields import between, non_negative
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GSPO(Method):
    """min(s A, clip(s, 1 - clip_low, 1 + clip_high) A) with s = exp(mean_t log r_t), one ratio for a whole response.

    At a token the ratio is s p / sg(p), where sg stops the gradient: all tokens of a response have the same weight and
    are clipped together. There is no dual clip. The published loss is the mean over responses of their token means
    (actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean); here the aggregation is the run's, so that two runs
    differ only in the method. With the default, token-mean, a long response counts for more.
    """

    paper: ClassVar[str] = "GSPO, arXiv 2507.18071"
    on_policy: ClassVar[str] = "plain policy gradient: s is 1"
    released: ClassVar[str] = (
        "verl's version takes the run's clip range, and bounds log s only from above, at 10; here the log-ratios of "
        "the tokens are within +-20; the default range is a second-hand value"
    )

    clip_low: float = between(0, 1, 3e-4, "lower clip range of the response's ratio")
    clip_high: float = non_negative(4e-4, "upper clip range of the response's ratio")

    def clip(self, clip: Clip) -> Clip:
        return Clip(self.clip_low, self.clip_high, float("inf"))

    def policy_loss(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        response = tokens.response_mean(tokens.log_ratio.detach()).exp()
        ratio = response[:, None].to(tokens.log_prob.dtype) * tokens.self_ratio
        clipped = ratio.clamp(1 - update.clip.low, 1 + update.clip.high)
        return torch.maximum(-tokens.advantages * ratio, -tokens.advantages * clipped)
