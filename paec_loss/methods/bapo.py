"""BAPO: clip bounds that rise until positive tokens weigh as much as negative ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Clip, Tokens, Update
from paec_loss.fields import between, positive, share
from paec_loss.method import BatchMethod, clipped_surrogate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Bounds:
    """Bounds of the ratio in this update, and the balance rho at them (inf if no token has A < 0)."""

    low: float
    high: float
    balance: float


@dataclass(frozen=True)
class BAPO(BatchMethod[Bounds]):
    """Clipped surrogate with bounds [low, high], which are raised for each mini-batch until rho >= balance.

    rho = sum_{A > 0} min(r, high) A / sum_{A < 0} max(r, low) |A| over the mini-batch. The search starts at
    (low, high). While rho < balance, low grows by `step` up to max_low, which excludes more tokens with A < 0 from the
    gradient; then high grows by `step` up to max_high. Without tokens with A < 0 the bounds do not move. The dual clip
    is the run's.
    """

    paper: ClassVar[str] = "BAPO, arXiv 2510.18927"
    on_policy: ClassVar[str] = "nothing: no ratio is clipped"
    spans: ClassVar[str] = "the sums of both signs"
    released: ClassVar[str] = (
        "the released code finds the bounds for every micro-batch, from the sums of all ranks; order and direction of "
        "the search are those of that code, although a larger low makes rho smaller, since max(r, low) grows; the "
        "bounds are those that it names as the paper's (its configuration stops at 0.8 and 2), and the paper's "
        "rho_0 = 0.5 is the share of positive tokens in both sums, which is balance=1"
    )
    uses_clip: ClassVar[bool] = False

    low: float = share(0.6, "initial lower bound of the ratio")
    max_low: float = share(0.9, "largest lower bound")
    high: float = between(1, 100, 1.2, "initial upper bound of the ratio")
    max_high: float = between(1, 100, 3.0, "largest upper bound")
    step: float = positive(0.05, "increment of a bound in the search")
    balance: float = positive(1.0, "smallest accepted rho, the weight of positive tokens relative to negative ones")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high"):
            first, last = getattr(self, name), getattr(self, f"max_{name}")
            if last < first:
                raise ValueError(f"method.max_{name}={last!r}: must be >= method.{name}={first!r}")

    def prepare(self, batch: Tokens, update: Update) -> Bounds:
        ratio, advantages = batch.masked(batch.log_ratio).exp(), batch.masked(batch.advantages)
        for low, high in self._search():
            positive_sum = (ratio.clamp_max(high) * advantages.clamp_min(0)).sum().item()
            negative_sum = -(ratio.clamp_min(low) * advantages.clamp_max(0)).sum().item()
            found = positive_sum / negative_sum if negative_sum > 0 else float("inf")
            if found >= self.balance:
                break
        return Bounds(low, high, found)

    def _search(self) -> list[tuple[float, float]]:
        """The bounds that are tried, in this order."""
        lows, highs = _grid(self.low, self.max_low, self.step), _grid(self.high, self.max_high, self.step)
        return [(low, self.high) for low in lows] + [(self.max_low, high) for high in highs[1:]]

    def policy_loss(self, tokens: Tokens, context: Bounds, update: Update) -> Tensor:
        return clipped_surrogate(tokens, Clip(1 - context.low, context.high - 1, update.clip.dual_clip))

    def metrics(self, context: Bounds, sums: Mapping[str, float], update: Update) -> dict[str, float]:
        return {"low": context.low, "high": context.high}


def _grid(first: float, last: float, step: float) -> list[float]:
    """first, first + step, ... and last."""
    count = math.ceil((last - first) / step - 1e-9)
    return [min(first + i * step, last) for i in range(count + 1)]
