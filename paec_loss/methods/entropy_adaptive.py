"""Adaptive entropy control: an entropy bonus whose weight grows while the entropy is below a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss.batch import Rollouts, Tokens, Update
from paec_loss.fields import non_negative
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EntropyAdaptive(Method):
    """Loss term -c Hbar while the step's entropy H <= target, else 0; c rises by delta if H < target, else falls.

    H is the mean token entropy (nats) of the step's responses at its start, Hbar that of the mini-batch at its update.
    c starts at 0 and stays in [0, max_coefficient]; a step uses the c that the previous step left.
    """

    paper: ClassVar[str] = "Skywork-OR1 (adaptive entropy control), arXiv 2505.22312"
    on_policy: ClassVar[str] = "the same"
    spans: ClassVar[str] = "mean entropy of the step, number of tokens"
    released: ClassVar[str] = (
        "the released code estimates H by the mean of -log p, and lets the previous step decide whether the bonus "
        "acts; here H is the entropy, and this step decides"
    )

    target: float = non_negative(0.2, "mean entropy below which the bonus acts and grows, nats")
    delta: float = non_negative(1e-4, "change of the bonus's weight per step")
    max_coefficient: float = non_negative(0.005, "largest weight of the bonus")

    @property
    def unscheduled(self) -> Mapping[str, str]:
        return {"max_coefficient": "the bound of what is remembered"}

    def tracker(self) -> EntropyController:
        return EntropyController(self)

    def loss_term(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        return tokens.total(tokens.entropy) * (-update.tracker_signal["coefficient"] / max(update.tokens, 1))


class EntropyController:
    """c, and the weight in effect: c, or 0 above the target."""

    def __init__(self, config: EntropyAdaptive) -> None:
        self.config = config
        self.coefficient = 0.0
        self.acting = 0.0

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        config, entropy = self.config, rollouts.mean(rollouts.entropy)
        if math.isnan(entropy):  # on neither side of the target: kept, so that the loss shows it
            self.acting = self.coefficient = entropy
        else:
            self.acting = self.coefficient if entropy <= config.target else 0.0
            moved = self.coefficient + (config.delta if entropy < config.target else -config.delta)
            self.coefficient = min(max(moved, 0.0), config.max_coefficient)
        return {"entropy": entropy, "coefficient": self.acting}

    def signal(self, step: int) -> dict[str, float]:
        return {"coefficient": self.acting}

    def state_dict(self) -> dict[str, Any]:
        return {"coefficient": self.coefficient, "acting": self.acting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        largest = self.config.max_coefficient
        numbers = [state.get(name) for name in ("coefficient", "acting")]
        if len(state) != 2 or not all(type(number) is float and 0 <= number <= largest for number in numbers):
            raise ValueError(
                f"entropy_adaptive state {state}: must be coefficient and acting, each in [0, {largest:g}]; resume "
                "with the method.max_coefficient of the run"
            )
        self.coefficient, self.acting = numbers
