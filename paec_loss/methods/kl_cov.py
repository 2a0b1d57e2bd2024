"""KL-Cov: a penalty keeps the tokens of highest covariance between log-prob and advantage near the old policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Tokens, Update
from paec_loss.fields import non_negative, share
from paec_loss.method import BatchMethod
from paec_loss.methods._top_tokens import TopTokens, floor_of
from paec_loss.methods.clip_cov import covariance

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class KLCov(BatchMethod[TopTokens]):
    """Loss -A r, no clip; plus beta |log r| for the max(1, floor(ratio N)) tokens of largest c_t.

    c_t = (A - mean A)(log p - mean log p) over the mini-batch, N its tokens; ties are broken at random.
    """

    paper: ClassVar[str] = "KL-Cov, arXiv 2505.22617"
    on_policy: ClassVar[str] = (
        "nothing if both passes give the same log-probs to the bit; otherwise the rounding between them gives every "
        "penalised token a push of full size and random sign, since the gradient of |log r| does not shrink with log r"
    )
    spans: ClassVar[str] = "means of A and log p, number of tokens, the largest covariances"
    released: ClassVar[str] = (
        "the released code computes everything over the micro-batch, and does not clamp log-ratios"
    )

    uses_clip: ClassVar[bool] = False

    ratio: float = share(
        2e-3, "share of the mini-batch's tokens that are penalised; published: 2e-3 at 7B, 2e-4 at 32B"
    )
    beta: float = non_negative(1.0, "weight of |log r|")

    def prepare(self, batch: Tokens, update: Update) -> TopTokens:
        value = covariance(batch, batch.mean(batch.advantages), batch.mean(batch.log_prob))
        return TopTokens.of(value, batch, update, max(1, floor_of(self.ratio, update.tokens)))

    def token_weights(self, tokens: Tokens, context: TopTokens, update: Update) -> Tensor:
        return context.among(tokens).double()

    def policy_loss(self, tokens: Tokens, context: TopTokens, update: Update) -> Tensor:
        log_ratio = tokens.log_ratio
        penalty = torch.where(context.among(tokens), self.beta * log_ratio.abs(), 0.0)
        return penalty - tokens.advantages * log_ratio.exp()
