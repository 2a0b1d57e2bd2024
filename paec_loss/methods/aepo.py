"""AEPO (arbitrary entropy): correct responses drawn at a higher or lower temperature steer the entropy to a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import non_negative, positive, share
from paec_loss.method import Method, Sampling, Tracker

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AEPO(Method):
    """A share of the prompts is drawn at T_high while Hbar < target, else at T_low; their A is alpha max(R, 0).

    Hbar is the mean token entropy (nats) of the last step's other responses; before the first step it counts as 0,
    which gives T_high. The responses drawn at T_high or T_low have no group baseline: those with a positive reward are
    reinforced (on-policy with the gradient alpha R grad log pi), the others have advantage 0. Ratio and clip are the
    surrogate's, at the rollout's temperature. The other temperature is not corrected for; that is what moves the
    entropy. All other responses keep the estimator's advantages.
    """

    paper: ClassVar[str] = "Arbitrary entropy policy optimization, arXiv 2510.08141"
    on_policy: ClassVar[str] = "the same: a plain REINFORCE term on the responses drawn at the other temperature"
    spans: ClassVar[str] = "the step: mean entropy, for the next step"
    released: ClassVar[str] = (
        "the released code draws the share in addition to the batch, and replaces other responses by at most 60 of the "
        "drawn ones that have a positive GRPO advantage (half of them while the entropy is high), with A = 1; here the "
        "share is part of the batch, and the reward decides, as in the text; its target "
        "(entropy_base) is 0.5"
    )

    target: float = positive(0.75, "target of the mean entropy, nats")
    temperature_high: float = positive(1.2, "temperature while the entropy is below the target")
    temperature_low: float = positive(0.8, "temperature otherwise")
    share: float = share(0.25, "share of a step's prompts drawn at temperature_high or temperature_low")
    alpha: float = non_negative(1.0, "weight of these responses in the update; 0 drops them")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature_low > self.temperature_high:
            raise ValueError(
                f"method.temperature_low={self.temperature_low!r}: must not be above "
                f"method.temperature_high={self.temperature_high!r}"
            )

    def tracker(self) -> Tracker:
        return EntropyTracker()

    def sampling(self, tracker_signal: Mapping[str, float]) -> Sampling:
        low = tracker_signal.get("entropy", 0.0) < self.target
        return Sampling(self.share, self.temperature_high if low else self.temperature_low)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        if rollouts.resampled is None:
            return rollouts.advantages
        reinforced = self.alpha * rollouts.rewards.clamp_min(0)[:, None]
        return rollouts.at_tokens(torch.where(rollouts.resampled[:, None], reinforced, rollouts.advantages))


class EntropyTracker:
    """Mean token entropy of the last step's responses drawn at the run's temperature; None before the first step."""

    def __init__(self) -> None:
        self.entropy: float | None = None

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        own = rollouts.response_mask
        if rollouts.resampled is not None:
            own = own & ~rollouts.resampled[:, None]
        if own.any():
            self.entropy = max(rollouts.entropy[own].double().mean().item(), 0.0)  # rounding can leave -1e-9
        return self.signal(rollouts.step)

    def signal(self, step: int) -> dict[str, float]:
        return {} if self.entropy is None else {"entropy": self.entropy}

    def state_dict(self) -> dict[str, Any]:
        return {"entropy": self.entropy}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        value = state.get("entropy") if isinstance(state, dict) and set(state) == {"entropy"} else math.nan
        known = isinstance(value, float) and math.isfinite(value) and value >= 0
        if value is not None and not known:
            raise ValueError(f"invalid AEPO state {state!r}: expected an entropy >= 0, or null")
        self.entropy = value
