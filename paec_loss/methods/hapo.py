"""HAPO: advantages and clip ranges that follow the token's entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Clip, Tokens, Update
from paec_loss.fields import between
from paec_loss.method import BatchMethod, clipped_surrogate

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 1e-8
"""Lower bound of entropies, nats: at an entropy of 0, ln H would be -inf."""


@dataclass(frozen=True)
class Scale:
    """Values of the mini-batch: the pivot of ln H, and the largest distance from it on either side (1 if none)."""

    pivot: float
    above: float
    below: float


@dataclass(frozen=True)
class HAPO(BatchMethod[Scale]):
    """A (1 + beta h), and a clip range of (1 - alpha h) low and (1 + alpha h) high, h in [-1, 1] from the entropy.

    h is (ln H - Q(ln H)) / rms over the mini-batch, Q the quantile `pivot`, then divided by its maximum where h > 0 and
    by the absolute value of its minimum where h < 0 (rms cancels), and cut to [-1, 1]. A token with h > 0 has the new
    advantage only if its ratio is outside the band [1 - low / 2, 1 + high / 2] of its clip range, any other token only
    if it is inside.
    """

    paper: ClassVar[str] = "HAPO, arXiv 2509.16591, without its adaptive temperature; its group average is hapo_average"
    on_policy: ClassVar[str] = "shrinks the advantages of tokens with h <= 0, nothing else"
    spans: ClassVar[str] = "quantile, maximum and minimum of ln H"
    released: ClassVar[str] = (
        "the released code divides by the signed minimum, so that h >= 0 everywhere, and moves only one bound of a "
        "token's range (high where h > 0, else low); here both bounds move, as in the formula"
    )

    alpha: float = between(0, 1, 1.0, "strength with which the clip range follows h")
    beta: float = between(0, 1, 1.0, "strength with which the advantage follows h")
    pivot: float = between(0, 1, 0.8, "quantile of ln H at which h is 0")

    def prepare(self, batch: Tokens, update: Update) -> Scale:
        values = batch.masked(_log_entropy(batch)).sort().values
        if not values.numel():
            return Scale(0.0, 1.0, 1.0)
        pivot = values[round(self.pivot * (len(values) - 1))].item()
        return Scale(pivot, values[-1].item() - pivot or 1.0, pivot - values[0].item() or 1.0)

    def _position(self, tokens: Tokens, context: Scale) -> Tensor:
        """[B, R] h in [-1, 1], float64; 0 at padding."""
        distance = _log_entropy(tokens) - context.pivot
        scaled = torch.where(distance > 0, distance / context.above, distance / context.below)
        # With statistics_from=step the entropies have moved since the extremes were taken.
        return torch.where(tokens.response_mask, scaled.clamp(-1.0, 1.0), 0.0)

    def _clip(self, position: Tensor, clip: Clip) -> Clip:
        shift = self.alpha * position
        return Clip(clip.low * (1 - shift), clip.high * (1 + shift), clip.dual_clip)

    def token_advantages(self, tokens: Tokens, context: Scale, update: Update) -> Tensor:
        position, ratio = self._position(tokens, context), tokens.log_ratio.detach().exp()
        clip = self._clip(position, update.clip)
        inside = (ratio >= 1 - clip.low / 2) & (ratio <= 1 + clip.high / 2)
        changed = tokens.advantages * (1 + self.beta * position).to(tokens.advantages.dtype)
        return torch.where(inside == (position <= 0), changed, tokens.advantages)

    def policy_loss(self, tokens: Tokens, context: Scale, update: Update) -> Tensor:
        position = self._position(tokens, context).to(tokens.log_prob.dtype)
        return clipped_surrogate(tokens, self._clip(position, update.clip))


def _log_entropy(tokens: Tokens) -> Tensor:
    return tokens.entropy.detach().double().clamp_min(FLOOR).log()
