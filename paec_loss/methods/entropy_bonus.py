"""Entropy bonus: the mean token entropy, rewarded equally at all tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Tokens, Update
from paec_loss.fields import number
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EntropyBonus(Method):
    """Loss term -coefficient * Hbar, Hbar the mean entropy of the mini-batch's response tokens, nats."""

    paper: ClassVar[str] = "A3C, arXiv 1602.01783; for one-example RLVR, arXiv 2504.20571"
    on_policy: ClassVar[str] = "the same"
    spans: ClassVar[str] = "number of tokens"

    coefficient: float = number(0.001, "weight of the mean entropy; negative: entropy is minimised")

    def loss_term(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        return tokens.total(tokens.entropy) * (-self.coefficient / max(update.tokens, 1))
