"""CE-GPPO: tokens that the surrogate clips keep a bounded gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Clip, Tokens, Update
from paec_loss.fields import between, non_negative
from paec_loss.method import Method, dual_clipped

if TYPE_CHECKING:
    from torch import Tensor


def bounded_surrogate(tokens: Tokens, clip: Clip, beta_low: float, beta_high: float) -> Tensor:
    """[B, R] the clipped surrogate, except that clipped tokens keep a gradient in log p.

    The size of that gradient is beta_high (1 + high) |A| where A > 0 and r > 1 + high, and beta_low (1 - low) |A| where
    A < 0 and r < 1 - low. The dual clip still stops the gradient.
    """
    advantages, ratio = tokens.advantages, tokens.log_ratio.exp()
    # From the log-probs, because the clamp inside log_ratio has no gradient.
    own = tokens.self_ratio - 1
    above, below = (1 + clip.high) * (1 + beta_high * own), (1 - clip.low) * (1 + beta_low * own)
    clipped = torch.where(ratio > 1 + clip.high, above, torch.where(ratio < 1 - clip.low, below, ratio))
    loss = torch.maximum(-advantages * ratio, -advantages * clipped)
    return dual_clipped(loss, advantages, clip.dual_clip)


@dataclass(frozen=True)
class CEGPPO(Method):
    """Clipped surrogate in which a clipped token keeps its gradient, with weight beta (1 - low) or beta (1 + high).

    The gradient in log p is -A g: g = beta_low (1 - low) where A < 0 and r < 1 - low, beta_high (1 + high) where A > 0
    and r > 1 + high, r elsewhere; the dual clip is the run's. The loss has the clipped surrogate's value for any beta.
    beta_low=1 beta_high=1 is GPPO (arXiv 2508.07629); 0 and 0 is the clipped surrogate.
    """

    paper: ClassVar[str] = "CE-GPPO, arXiv 2509.20712; GPPO, arXiv 2508.07629"
    on_policy: ClassVar[str] = "nothing: no ratio is clipped"
    released: ClassVar[str] = (
        "in the released code beta also multiplies the loss of a clipped token, here only its gradient; the gradients "
        "are the same; the clip range is that of both released scripts"
    )

    beta_low: float = non_negative(0.75, "share of the gradient below the range; published: 0.5 at 1.5B, 0.75 at 7B")
    beta_high: float = non_negative(1.0, "share of the gradient above the range")
    clip_low: float = between(0, 1, 0.2, "lower clip range")
    clip_high: float = non_negative(0.2, "upper clip range")

    def clip(self, clip: Clip) -> Clip:
        return Clip(self.clip_low, self.clip_high, clip.dual_clip)

    def policy_loss(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        return bounded_surrogate(tokens, update.clip, self.beta_low, self.beta_high)
