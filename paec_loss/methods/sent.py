"""SENT: easy prompts first, and a KL to the reference on the tokens of low entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import MAX_LOG_RATIO, Tokens, Update
from paec_loss.fields import non_negative, share
from paec_loss.method import BatchMethod
from paec_loss.methods._top_tokens import floor_of
from paec_loss.methods.clip_cov import covariance

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the mini-batch, for low entropy and for high covariance, and the means in the covariance."""

    entropy: float
    covariance: float
    mean_advantage: float
    mean_log_prob: float


@dataclass(frozen=True)
class SENT(BatchMethod[Thresholds]):
    """Loss term sum_t w_t KL_t / N over the tokens of low entropy; the prompts are in the order of a curriculum.

    KL_t = exp(d) - d - 1 with d = log p_ref - log p, N the mini-batch's tokens. The K tokens of lowest entropy, a share
    `low_entropy` of all, have w = coefficient * low. Among them, the max(1, floor(ratio K)) of highest covariance
    (A - mean A)(log p - mean log p), with means over the K tokens, have w = coefficient * high. Tied tokens are on the
    same side of a threshold.
    """

    paper: ClassVar[str] = "SENT, arXiv 2512.04359"
    on_policy: ClassVar[str] = (
        "the same: the KL is to the reference; the released penalty acts only through rounding, as in kl_cov, the "
        "released KL to the reference in full"
    )
    spans: ClassVar[str] = "thresholds of entropy and covariance, means of A and log p"
    released: ClassVar[str] = (
        "the released code has abs(log p - log p_old) on the highest (x2) and lowest (x0.5) covariances of a "
        "micro-batch, without clipping, through an integer mask, and beside it a KL to the reference on all tokens "
        "with the weight 0.001 (kl_loss_coef, low_var_kl); here it is the text's KL, added to the clipped surrogate, "
        "and its coefficient 0.1 is that of the released penalty (ppo_kl_coef), because none of this KL was found"
    )
    needs = {"reference", "curriculum"}

    coefficient: float = non_negative(0.1, "weight of the KL that `low` and `high` multiply")
    low: float = non_negative(0.5, "factor for tokens of low entropy")
    high: float = non_negative(2.0, "factor for tokens of high covariance")
    ratio: float = share(2e-4, "share of the tokens of low entropy that have high covariance")
    low_entropy: float = share(0.8, "share of the mini-batch's tokens that have low entropy")

    def prepare(self, batch: Tokens, update: Update) -> Thresholds:
        if not update.tokens:
            return Thresholds(0.0, 0.0, 0.0, 0.0)
        entropy = batch.masked(batch.entropy)
        edge = _edge(entropy, max(1, floor_of(self.low_entropy, len(entropy))))
        low = entropy <= edge
        advantage, log_prob = (batch.masked(x)[low].mean().item() for x in (batch.advantages, batch.log_prob))
        falling = -batch.masked(covariance(batch, advantage, log_prob))[low]
        return Thresholds(edge, -_edge(falling, max(1, floor_of(self.ratio, len(falling)))), advantage, log_prob)

    def _selected(self, tokens: Tokens, context: Thresholds) -> tuple[Tensor, Tensor]:
        """[B, R] bool each: tokens of low entropy; tokens of high covariance."""
        low = tokens.response_mask & (tokens.entropy.detach().double() <= context.entropy)
        return low, covariance(tokens, context.mean_advantage, context.mean_log_prob) >= context.covariance

    def token_weights(self, tokens: Tokens, context: Thresholds, update: Update) -> Tensor:
        low, high = self._selected(tokens, context)
        return low * torch.where(high, self.high, self.low).double()

    def loss_term(self, tokens: Tokens, context: Thresholds, update: Update) -> Tensor:
        low, high = self._selected(tokens, context)
        difference = (tokens.ref_log_prob - tokens.log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        kl = difference.exp() - difference - 1
        weighted = torch.where(high, self.high * kl, self.low * kl)
        return torch.where(low, weighted, 0.0).sum(dtype=torch.float64) * (self.coefficient / max(update.tokens, 1))


def _edge(values: Tensor, count: int) -> float:
    """Midpoint between the `count`-th smallest value and the next, so that rounding moves no token across."""
    ordered = values.sort().values
    return ordered[count - 1 : count + 1].mean().item()
