"""Targeted entropy regularisation: the mean token entropy is pulled to a target from both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Tokens, Update
from paec_loss.fields import non_negative
from paec_loss.method import BatchMethod

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EntropyTarget(BatchMethod[float]):
    """Loss term coefficient * |Hbar - target|, Hbar the mean entropy of the mini-batch's response tokens, nats.

    Its gradient is +-coefficient * grad Hbar, and 0 if Hbar equals the target.
    """

    paper: ClassVar[str] = "Confucius3-Math (targeted entropy regularization), arXiv 2506.18330"
    on_policy: ClassVar[str] = "the same"
    spans: ClassVar[str] = "whether Hbar is above or below the target, number of tokens"

    coefficient: float = non_negative(0.001, "weight of the distance from the target")
    target: float = non_negative(0.55, "target of the mean entropy, nats")

    def prepare(self, batch: Tokens, update: Update) -> float:
        """Position of Hbar relative to the target: 1 above, -1 below, 0 equal."""
        mean = batch.mean(batch.entropy)
        return float((mean > self.target) - (mean < self.target))

    def loss_term(self, tokens: Tokens, context: float, update: Update) -> Tensor:
        return tokens.total(tokens.entropy - self.target) * (self.coefficient * context / max(update.tokens, 1))
