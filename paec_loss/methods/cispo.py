"""CISPO: the importance weight is clipped, and every token keeps its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Clip, Tokens, Update
from paec_loss.fields import between, non_negative
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CISPO(Method):
    """Loss -sg(clip(r, 1 - clip_low, 1 + clip_high)) A log p: a token beyond the range keeps a bounded gradient.

    sg stops the gradient. There is neither a minimum of two losses nor a dual clip. The defaults have no lower bound
    and weights of at most 5.
    """

    paper: ClassVar[str] = "CISPO (MiniMax-M1), arXiv 2506.13585"
    on_policy: ClassVar[str] = "plain policy gradient"
    released: ClassVar[str] = (
        "verl's version takes the run's clip range, the same as clip_low=0.2 clip_high=0.2; the published method has "
        "no lower bound and a tuned upper bound; its default here, 4, is a second-hand value"
    )

    clip_low: float = between(0, 1, 1.0, "lower clip range: weights are at least 1 - clip_low; 1: no lower bound")
    clip_high: float = non_negative(4.0, "upper clip range: weights are at most 1 + clip_high")

    def clip(self, clip: Clip) -> Clip:
        return Clip(self.clip_low, self.clip_high, float("inf"))

    def policy_loss(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        weight = tokens.log_ratio.detach().exp().clamp(1 - update.clip.low, 1 + update.clip.high)
        return -weight * tokens.advantages * tokens.log_prob
