"""Entropy advantage: tokens of high entropy get a larger advantage, without changing its sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Tokens, Update
from paec_loss.fields import non_negative, positive
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EntropyAdvantage(Method):
    """A + min(alpha H_t, |A| / kappa), H_t the current policy's token entropy (nats), without gradient."""

    paper: ClassVar[str] = "Reasoning with Exploration: An Entropy Perspective, arXiv 2506.14758"
    on_policy: ClassVar[str] = "the same: entropy does not need a ratio"

    alpha: float = non_negative(0.4, "weight of the entropy")
    kappa: float = positive(2.0, "bound of the addition, at most |A| / kappa; above 1 no advantage changes its sign")

    def token_advantages(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        advantages = tokens.advantages
        return advantages + torch.minimum(self.alpha * tokens.entropy.detach(), advantages.abs() / self.kappa)
