"""ASPO: tokens with a positive advantage are weighted by the inverse of their ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Tokens, Update
from paec_loss.fields import between, positive
from paec_loss.method import Method
from paec_loss.methods.archer import by_class, uncertain

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ASPO(Method):
    """Weight 1 / r where A > 0, r elsewhere, at most max_weight; no gradient beyond 1 + w (A > 0) or 1 - w (A < 0).

    Both the loss and its gradient in log p are -A times the weight, so unlikely tokens of a good response grow faster
    than likely ones. A token at max_weight keeps its gradient. The clip range w of the ratio is `clip_uncertain` for
    tokens whose entropy H_t under the current policy is above their response's quantile, `clip_certain` for the others,
    as in Archer.
    """

    paper: ClassVar[str] = "ASPO (Archer2.0), arXiv 2510.06062"
    on_policy: ClassVar[str] = "plain policy gradient"
    spans: ClassVar[str] = "the response: quantile of H"
    released: ClassVar[str] = (
        "the weights follow the released code; the loss of a clipped token, which has no gradient, is the loss at the "
        "bound, so it is continuous"
    )
    uses_clip: ClassVar[bool] = False

    max_weight: float = positive(3.0, "largest weight of a token; the token keeps its gradient")
    quantile: float = between(0, 1, 0.8, "quantile of a response's entropies above which a token is uncertain")
    clip_uncertain: float = between(0, 1, 0.4, "clip range of uncertain tokens")
    clip_certain: float = between(0, 1, 0.2, "clip range of the others")

    def policy_loss(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        ratio, width = tokens.log_ratio.detach().exp(), self._width(tokens)
        good = tokens.advantages > 0
        clipped = torch.where(good, ratio > 1 + width, ratio < 1 - width)
        weight = torch.where(good, 1 / ratio.minimum(1 + width), ratio.maximum(1 - width)).clamp_max(self.max_weight)
        return -tokens.advantages * weight * torch.where(clipped, 1.0, tokens.self_ratio)

    def _width(self, tokens: Tokens) -> Tensor:
        """[B, R] clip range of every token."""
        width = by_class(uncertain(tokens, self.quantile), self.clip_uncertain, self.clip_certain)
        return width.to(tokens.log_prob.dtype)
