"""Clip-Cov: a few tokens of high covariance between log-prob and advantage are removed from the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Clip, Tokens, Update
from paec_loss.fields import between, non_negative, number, share
from paec_loss.method import BatchMethod
from paec_loss.methods._top_tokens import TopTokens, floor_of

if TYPE_CHECKING:
    from torch import Tensor


def covariance(tokens: Tokens, mean_advantage: float, mean_log_prob: float) -> Tensor:
    """[B, R] c_t = (A - mean A)(log p - mean log p), float64, without gradient (arXiv 2505.22617)."""
    log_prob, advantages = tokens.log_prob.detach().double(), tokens.advantages.double()
    return (advantages - mean_advantage) * (log_prob - mean_log_prob)


@dataclass(frozen=True)
class ClipCov(BatchMethod[TopTokens]):
    """Of the unclipped tokens with lower < c_t < upper, max(1, floor(ratio N)) chosen at random have loss 0.

    c_t = (A - mean A)(log p - mean log p) over the mini-batch, N its tokens. The denominator of the loss is unchanged.
    """

    paper: ClassVar[str] = "Clip-Cov, arXiv 2505.22617"
    on_policy: ClassVar[str] = "the same: covariance does not need a ratio"
    spans: ClassVar[str] = "means of A and log p, number of tokens, choice among the candidates"
    released: ClassVar[str] = (
        "the released code computes everything over the micro-batch; like this code, it has no dual clip"
    )

    ratio: float = share(2e-4, "share of the mini-batch's tokens that are dropped")
    lower: float = number(1.0, "lower bound of the covariance of candidates")
    upper: float = number(5.0, "upper bound of the covariance of candidates")
    clip_low: float = between(0, 1, 1.0, "lower clip range; the published scripts disable it")
    clip_high: float = non_negative(1.0, "upper clip range")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lower >= self.upper:
            raise ValueError(f"method.lower={self.lower!r}: must be below method.upper={self.upper!r}")

    def clip(self, clip: Clip) -> Clip:
        return Clip(self.clip_low, self.clip_high, float("inf"))

    def prepare(self, batch: Tokens, update: Update) -> TopTokens:
        candidates = self._candidates(batch, update)
        count = min(max(1, floor_of(self.ratio, update.tokens)), int(candidates.sum()))
        return TopTokens.of(candidates, batch, update, count)  # candidates have equal values, so the choice is random

    def _candidates(self, batch: Tokens, update: Update) -> Tensor:
        ratio, advantages = batch.log_ratio.exp(), batch.advantages
        clipped = -advantages * ratio.clamp(1 - update.clip.low, 1 + update.clip.high) > -advantages * ratio
        value = covariance(batch, batch.mean(advantages), batch.mean(batch.log_prob))
        return batch.response_mask & ~clipped & (value > self.lower) & (value < self.upper)

    def token_advantages(self, tokens: Tokens, context: TopTokens, update: Update) -> Tensor:
        return torch.where(context.among(tokens), 0.0, tokens.advantages)
