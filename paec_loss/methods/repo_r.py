"""REPO-R: advantages are rescaled by log-probs, so that rare tokens grow more and are punished less."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts, Tokens, Update
from paec_loss.fields import choice, non_negative, number, positive
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class REPOR(Method):
    """A max(0, 1 - zeta log p) where A > 0, A max(0, 1 + zeta log p) elsewhere; log p has no gradient.

    p is the current policy's. zeta > 0 preserves entropy, zeta < 0 reduces it, 0 changes nothing. With
    controller=adaptive each step first adapts zeta to H, the mean token entropy (nats) of its responses at its start.
    While H < target, a positive zeta doubles, up to max_zeta, and a negative one halves; where it would rise above
    -min_zeta, it becomes min_zeta. While H > target, the same holds with both signs exchanged.
    """

    paper: ClassVar[str] = "REPO-R (Entropy-preserving reinforcement learning), arXiv 2603.11682"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "with controller=adaptive the step: mean entropy"
    released: ClassVar[str] = (
        "no code by the authors was found, and the paper's appendix was not read: formula and controller are those of "
        "an implementation proposed for SkyRL, which takes log p in place of the paper's centred one; moving zeta "
        "before a step's updates, and the default target, are our choice"
    )

    zeta: float = number(0.01, "weight of log p; with controller=adaptive its initial value")
    controller: str = choice(("fixed", "adaptive"), "fixed", "whether zeta follows the entropy")
    target: float = non_negative(0.3, "mean entropy that controller=adaptive aims at, nats")
    min_zeta: float = positive(1e-4, "size of zeta when its sign changes")
    max_zeta: float = positive(1.0, "largest size of zeta")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_zeta > self.max_zeta:
            raise ValueError(f"method.min_zeta={self.min_zeta!r}: must not be above method.max_zeta={self.max_zeta!r}")
        if self.controller == "adaptive" and not self.min_zeta <= abs(self.zeta) <= self.max_zeta:
            raise ValueError(
                f"method.zeta={self.zeta!r}: with controller=adaptive its size must be in [method.min_zeta, "
                f"method.max_zeta] = [{self.min_zeta:g}, {self.max_zeta:g}]"
            )

    @property
    def unscheduled(self) -> Mapping[str, str]:
        bound = "a bound of what is remembered"
        return {"max_zeta": bound} | ({"zeta": "where it starts"} if self.controller == "adaptive" else {})

    def tracker(self) -> ZetaController:
        return ZetaController(self)

    def token_advantages(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        shift = update.tracker_signal["zeta"] * tokens.log_prob.detach()
        factor = torch.where(tokens.advantages > 0, 1 - shift, 1 + shift).clamp_min(0)
        return tokens.advantages * factor.to(tokens.advantages.dtype)


class ZetaController:
    """Holds zeta; with controller=fixed it is the field's value."""

    def __init__(self, config: REPOR) -> None:
        self.config = config
        self.zeta = float(config.zeta)

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        entropy, config = rollouts.mean(rollouts.entropy), self.config
        if config.controller == "adaptive" and math.isnan(entropy):
            self.zeta = entropy  # on neither side of the target: kept, so that the loss shows it
        elif config.controller == "adaptive" and entropy != config.target:
            wanted = 1.0 if entropy < config.target else -1.0
            if self.zeta * wanted > 0:
                self.zeta = wanted * min(2 * abs(self.zeta), config.max_zeta)
            else:
                halved = abs(self.zeta) / 2
                self.zeta = wanted * config.min_zeta if halved < config.min_zeta else -wanted * halved
        return {"entropy": entropy} | self.signal(rollouts.step)

    def signal(self, step: int) -> dict[str, float]:
        return {"zeta": self.config.zeta if self.config.controller == "fixed" else self.zeta}

    def state_dict(self) -> dict[str, Any]:
        return {"zeta": self.zeta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        zeta, largest = state.get("zeta"), self.config.max_zeta
        fixed = self.config.controller == "fixed"
        if (
            set(state) != {"zeta"}
            or type(zeta) is not float
            or not (math.isfinite(zeta) and (fixed or abs(zeta) <= largest))
        ):
            raise ValueError(
                f"repo_r state {state}: must be zeta, in [-{largest:g}, {largest:g}]; resume with the method.max_zeta "
                "of the run"
            )
        self.zeta = zeta
