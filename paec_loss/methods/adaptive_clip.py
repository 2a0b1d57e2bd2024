"""Adaptive clip: the upper clip bound grows while the entropy is below a target, and shrinks above it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss.batch import Clip, Rollouts, Tokens, Update
from paec_loss.fields import below_one, non_negative
from paec_loss.method import Method, clipped_surrogate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AdaptiveClip(Method):
    """Clipped surrogate with ratios in [1 - e, 1 / (1 - e) + k]; k grows while H < target and shrinks while H > target.

    H is the mean token entropy (nats) of the step's responses at its start. k starts at 0, moves by `change` before the
    updates of each step, and stays in [0, max_extra]. The dual clip is the run's.
    """

    paper: ClassVar[str] = "a controller from a model report of 2026, as described in a third party's recipe"
    on_policy: ClassVar[str] = "nothing: no ratio is clipped"
    spans: ClassVar[str] = "the step: mean entropy"
    released: ClassVar[str] = (
        "the report itself was not read; the recipe moves k after each update, here it moves once per step, before "
        "its updates, because all updates of a step share one entropy"
    )
    uses_clip: ClassVar[bool] = False

    clip_low: float = below_one(0.6, "lower clip range e: ratios below 1 - e or above 1 / (1 - e) + k are clipped")
    change: float = non_negative(0.25, "change of k per step")
    max_extra: float = non_negative(2.5, "largest k")
    target: float = non_negative(0.3, "mean entropy below which k grows, nats")

    @property
    def unscheduled(self) -> Mapping[str, str]:
        return {"max_extra": "the bound of what is remembered"}

    def tracker(self) -> ClipController:
        return ClipController(self)

    def policy_loss(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        high = 1 / (1 - self.clip_low) + update.tracker_signal["extra"] - 1
        return clipped_surrogate(tokens, Clip(self.clip_low, high, update.clip.dual_clip))


class ClipController:
    """Holds k as `extra`."""

    def __init__(self, config: AdaptiveClip) -> None:
        self.config = config
        self.extra = 0.0

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        entropy, config = rollouts.mean(rollouts.entropy), self.config
        # A NaN is on neither side of the target: kept, so that the loss shows it; in this order max and min keep it.
        change = config.change * ((entropy < config.target) - (entropy > config.target))
        moved = entropy if math.isnan(entropy) else self.extra + change
        self.extra = min(max(moved, 0.0), config.max_extra)
        return {"entropy": entropy, "extra": self.extra}

    def signal(self, step: int) -> dict[str, float]:
        return {"extra": self.extra}

    def state_dict(self) -> dict[str, Any]:
        return {"extra": self.extra}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        largest = self.config.max_extra
        if set(state) != {"extra"} or type(state["extra"]) is not float or not 0 <= state["extra"] <= largest:
            raise ValueError(
                f"adaptive_clip state {state}: must be extra, in [0, {largest:g}]; resume with the method.max_extra of "
                "the run"
            )
        self.extra = state["extra"]
