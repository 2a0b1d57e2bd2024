"""Position-based advantage: the end of a response has a larger weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import non_negative, share, whole
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PositionAdvantage(Method):
    """A_t + sign(A_t) min(alpha sigmoid(steepness (t / T - 1/2)), cap |A_t|) at token t = 1 ... T of a response.

    The paper applies it in the plateau stage, after the entropy has settled; here it acts from `start_step` on. The
    relative position t / T, which is 1 at the last token, is our choice.
    """

    paper: ClassVar[str] = "Decomposing the entropy-performance exchange, arXiv 2508.02260, position-based shaping"
    on_policy: ClassVar[str] = "the same: it needs no ratio"

    alpha: float = non_negative(0.1, "largest bonus, in units of the advantage; 0 leaves the advantages unchanged")
    steepness: float = non_negative(15.0, "steepness of the sigmoid in the middle of the response")
    cap: float = share(0.5, "largest bonus as a share of the token's own advantage")
    start_step: int = whole(1, "trainer step from which it acts: the first of the plateau stage")

    def advantages(self, rollouts: Rollouts) -> Tensor:
        if rollouts.step < self.start_step:
            return rollouts.advantages
        position = rollouts.response_mask.cumsum(-1).double() / rollouts.lengths.clamp_min(1)[:, None]
        bonus = self.alpha * torch.sigmoid(self.steepness * (position - 0.5))
        advantages = rollouts.advantages.double()
        return rollouts.at_tokens(advantages + advantages.sign() * torch.minimum(bonus, self.cap * advantages.abs()))
