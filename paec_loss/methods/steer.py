"""STEER: the more a token's update would change the entropy, the smaller its weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Clip, Tokens, Update
from paec_loss.fields import between, choice, non_negative, positive, share
from paec_loss.method import BatchMethod

if TYPE_CHECKING:
    from torch import Tensor

LEAST_RANGE = 0.02
"""Lower bound of the largest |Omega| of the mini-batch in the exponential weight."""


def entropy_change(tokens: Tokens) -> Tensor:
    """[B, R] |Omega| = |A| p / p_old (1 - p) |log p + H|, float64, without gradient.

    p and p_old are the token's probabilities now and at the start of the step; p / p_old is the clamped ratio, so
    that neither can underflow.
    """
    log_prob, entropy = tokens.log_prob.detach().double(), tokens.entropy.detach().double()
    ratio = tokens.log_ratio.detach().double().exp()
    return tokens.advantages.double().abs() * ratio * -log_prob.expm1() * (log_prob + entropy).abs()


@dataclass(frozen=True)
class Changes:
    """Smallest and largest |Omega| of the mini-batch; both 0 if it has no tokens."""

    least: float
    most: float


@dataclass(frozen=True)
class STEER(BatchMethod[Changes]):
    """The surrogate times a weight w(|Omega|), Omega = A / p_old p (1 - p) (log p + H), a token's entropy change.

    exponential: w = lambda_min^(|Omega| / max(max |Omega|, 0.02)); linear: w falls from lambda_max at the smallest
    |Omega| of the mini-batch to lambda_min at the largest, and is midway if they are equal.
    """

    paper: ClassVar[str] = "STEER, arXiv 2510.10150"
    on_policy: ClassVar[str] = "the same: Omega is then A (1 - p)(log p + H)"
    spans: ClassVar[str] = "smallest and largest |Omega|"
    released: ClassVar[str] = "the released code takes both over the micro-batch, and bounds p and p_old below by 1e-8"

    variant: str = choice(("exponential", "linear"), "exponential", "how the weight falls with |Omega|")
    lambda_min: float = share(0.8, "smallest weight; the paper's fourth version has 0.7")
    lambda_max: float = positive(1.2, "largest weight with variant=linear; with exponential it is 1")
    clip_low: float = between(0, 1, 0.2, "lower clip range")
    clip_high: float = non_negative(0.28, "upper clip range")
    dual_clip: float = between(
        1, math.inf, 10.0, "dual clip: the loss before the weight is at most this times |A| where A < 0; inf: none"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambda_max < self.lambda_min:
            raise ValueError(f"method.lambda_max={self.lambda_max!r}: must be >= method.lambda_min={self.lambda_min!r}")

    def clip(self, clip: Clip) -> Clip:
        return Clip(self.clip_low, self.clip_high, self.dual_clip)

    def prepare(self, batch: Tokens, update: Update) -> Changes:
        change = batch.masked(entropy_change(batch))
        return Changes(change.min().item(), change.max().item()) if change.numel() else Changes(0.0, 0.0)

    def token_advantages(self, tokens: Tokens, context: Changes, update: Update) -> Tensor:
        weight = self._weight(entropy_change(tokens), context)
        return tokens.advantages * weight.to(tokens.advantages.dtype)

    def _weight(self, change: Tensor, seen: Changes) -> Tensor:
        if self.variant == "exponential":
            exponent = change / max(seen.most, LEAST_RANGE)
            return (math.log(self.lambda_min) * exponent).exp().clamp(self.lambda_min, 1.0)
        span = seen.most - seen.least
        place = (change - seen.least) / span if span else torch.full_like(change, 0.5)
        return (self.lambda_max - place * (self.lambda_max - self.lambda_min)).clamp(self.lambda_min, self.lambda_max)
