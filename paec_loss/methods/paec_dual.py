"""PAEC with its floor held by a dual variable instead of a penalty of fixed weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from paec_loss.batch import Rollouts, Tokens, Update
from paec_loss.fields import positive
from paec_loss.methods.paec import PAEC, Calibration, PAECTracker


@dataclass(frozen=True)
class PAECDual(PAEC):
    """Loss term mu (H_low - Hbar) over softly selected tokens, mu >= 0 raised while Hbar is below H_low.

    After every step mu <- max(0, mu + dual_rate (H_low - Hbar) / H_0): the Lagrangian of the constraint Hbar >= H_low.
    PAEC's penalty settles below its floor, by an amount that depends on `lambda_low`; here mu grows until Hbar reaches
    the floor.
    """

    paper: ClassVar[str] = "nowhere yet: dual ascent on PAEC's floor, from this project"
    spans: ClassVar[str] = "selected entropy Hbar and its denominator Z"

    dual_rate: float = positive(0.1, "step size of the dual ascent; the gap is measured as a share of the anchor")
    """Step size in nats^-1 of the loss term. It does not depend on the scale of the entropy, because the gap is
    relative."""

    lambda_ent: float = 0.0
    lambda_low: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambda_low != 0:
            raise ValueError(f"method.lambda_low={self.lambda_low!r}: must be 0, the multiplier takes its place")
        if self.penalty != "floor":
            raise ValueError(f"method.penalty={self.penalty}: must be floor, the multiplier acts on one side")

    @property
    def unscheduled(self) -> Mapping[str, str]:
        return {"lambda_low": "always 0, the multiplier takes its place"}

    def tracker(self) -> PAECDualTracker:
        return PAECDualTracker(self)

    def prepare(self, batch: Tokens, update: Update) -> Calibration:
        found = super().prepare(batch, update)
        return replace(found, coefficient=self.lambda_ent + update.tracker_signal.get("multiplier", 0.0))


class PAECDualTracker(PAECTracker):
    """PAEC's anchor and floor, and the multiplier."""

    config: PAECDual

    def __init__(self, config: PAECDual) -> None:
        super().__init__(config)
        self.multiplier = 0.0

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        metrics = super().observe(rollouts)
        floor = self.anchor.floor(rollouts.step)
        anchor = self.anchor.value
        if floor is not None and anchor:
            gap = (floor - metrics["selected_entropy"]) / anchor
            # In this order max keeps a NaN; max(0.0, nan) would hide it.
            self.multiplier = max(self.multiplier + self.config.dual_rate * gap, 0.0)
        metrics["penalty"] = self.multiplier * (0.0 if floor is None else floor - metrics["selected_entropy"])
        return metrics | {"multiplier": self.multiplier, "penalty_active": float(self.multiplier > 0.0)}

    def signal(self, step: int) -> dict[str, float]:
        return {**super().signal(step), "multiplier": self.multiplier}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "multiplier": self.multiplier}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rest = dict(state)
        multiplier = float(rest.pop("multiplier", math.nan))
        if not (math.isfinite(multiplier) and multiplier >= 0):
            raise ValueError(f"the multiplier in the state is {state.get('multiplier')}: must be a number >= 0")
        super().load_state_dict(rest)
        self.multiplier = multiplier
