"""Clip-Cov: a few tokens of high covariance between log-prob and advantage leave the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paec_loss.fields import between, non_negative, number, share
from paec_loss.method import BatchMethod, Clip, Tokens, Update
from paec_loss.randomness import token_uniform


def covariance(tokens: Tokens, mean_advantage: float, mean_log_prob: float) -> Tensor:
    """[B, R] c_t = (A - mean A)(log p - mean log p), float64, without gradient (arXiv 2505.22617)."""
    log_prob, advantages = tokens.log_prob.detach().double(), tokens.advantages.double()
    return (advantages - mean_advantage) * (log_prob - mean_log_prob)


@dataclass(frozen=True)
class Candidates:
    """What the mini-batch says: the means, and the random number below which a candidate is dropped."""

    mean_advantage: float
    mean_log_prob: float
    below: float


@dataclass(frozen=True)
class ClipCov(BatchMethod):
    """Of the tokens with lower < c_t < upper that the clip leaves alone, max(1, floor(ratio N)) at random have loss 0.

    c_t = (A - mean A)(log p - mean log p) over the mini-batch, N its tokens. The denominator of the loss stays.
    """

    paper: ClassVar[str] = "Clip-Cov, arXiv 2505.22617"
    on_policy: ClassVar[str] = "the same: covariance does not need a ratio"
    spans: ClassVar[str] = "means of A and log p, number of tokens, choice among the candidates"
    released: ClassVar[str] = "the released code takes everything over the micro-batch, and no dual clip: none here too"

    ratio: float = share(2e-4, "share of the mini-batch's tokens that are dropped")
    lower: float = number(1.0, "lower bound of the covariance of candidates")
    upper: float = number(5.0, "upper bound of the covariance of candidates")
    clip_low: float = between(0, 1, 1.0, "lower clip range; the published scripts switch it off")
    clip_high: float = non_negative(1.0, "upper clip range")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lower >= self.upper:
            raise ValueError(f"method.lower={self.lower!r}: must be below method.upper={self.upper!r}")

    def clip(self, clip: Clip) -> Clip:
        return Clip(self.clip_low, self.clip_high, float("inf"))

    def prepare(self, batch: Tokens, update: Update) -> Candidates:
        mean_advantage, mean_log_prob = batch.mean(batch.advantages), batch.mean(batch.log_prob)
        chosen = self._candidates(batch, mean_advantage, mean_log_prob, update)
        count = max(1, int(self.ratio * update.tokens))
        lots = self._lots(batch, update)[chosen].sort().values
        below = lots[count].item() if count < len(lots) else 1.0
        return Candidates(mean_advantage, mean_log_prob, below)

    def _candidates(self, tokens: Tokens, mean_advantage: float, mean_log_prob: float, update: Update) -> Tensor:
        ratio, advantages = tokens.log_ratio.detach().exp(), tokens.advantages
        clipped = -advantages * ratio.clamp(1 - update.clip.low, 1 + update.clip.high) > -advantages * ratio
        value = covariance(tokens, mean_advantage, mean_log_prob)
        return tokens.response_mask & ~clipped & (value > self.lower) & (value < self.upper)

    def _lots(self, tokens: Tokens, update: Update) -> Tensor:
        return token_uniform(update.seed, update.step, tokens.response, tokens.response_mask.shape[1])

    def token_advantages(self, tokens: Tokens, context: Candidates, update: Update) -> Tensor:
        candidates = self._candidates(tokens, context.mean_advantage, context.mean_log_prob, update)
        dropped = candidates & (self._lots(tokens, update) < context.below)
        return torch.where(dropped, 0.0, tokens.advantages)
