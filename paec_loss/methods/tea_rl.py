"""TEA-RL of Light-IF: an entropy bonus whose weight follows a token's covariance within its response."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Tokens, Update
from paec_loss.fields import number, positive
from paec_loss.method import BatchMethod

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Means:
    """Means over the mini-batch's tokens."""

    advantage: float
    log_prob: float
    """Nats."""


@dataclass(frozen=True)
class TEARL(BatchMethod[Means]):
    """Loss term -coefficient sum_t w_t H_t / N, w_t = min(scale softmax(c)_t, max_weight), N the mini-batch's tokens.

    The softmax is over the tokens of a response, c_t = (A_t - mean A)(log p_t - mean log p) with the means of the
    mini-batch; w has no gradient. Before the bound, w is scale / length on average, so choose the coefficient for the
    length of the responses.
    """

    paper: ClassVar[str] = "Light-IF, arXiv 2508.03178; the formula is the one of its released code"
    on_policy: ClassVar[str] = "the same: covariance does not need a ratio"
    spans: ClassVar[str] = "means of A and log p, number of tokens; the response: the softmax"
    released: ClassVar[str] = (
        "the released code reads a name that is never set, and only beside another policy loss, so its scripts train "
        "plain GRPO; its means are those of a micro-batch, and its w has a gradient. The paper's formula was not found"
    )

    coefficient: float = number(1.0, "weight of the term; negative: entropy is minimised")
    scale: float = positive(10.0, "sum of a response's weights before the bound")
    max_weight: float = positive(5.0, "largest weight of a token")

    def prepare(self, batch: Tokens, update: Update) -> Means:
        return Means(batch.mean(batch.advantages), batch.mean(batch.log_prob))

    def loss_term(self, tokens: Tokens, context: Means, update: Update) -> Tensor:
        bonus = tokens.total(self._weights(tokens, context) * tokens.entropy)
        return bonus * (-self.coefficient / max(update.tokens, 1))

    def _weights(self, tokens: Tokens, context: Means) -> Tensor:
        """[B, R] float64 w, 0 at padding, without gradient."""
        inside = tokens.response_mask
        advantages, log_prob = tokens.advantages.double(), tokens.log_prob.detach().double()
        covariance = (advantages - context.advantage) * (log_prob - context.log_prob)
        share = torch.where(inside, covariance, -math.inf).softmax(-1)  # NaN in a row without tokens
        return torch.where(inside, self.scale * share, 0.0).clamp_max(self.max_weight)
