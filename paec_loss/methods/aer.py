"""AER, reconstructed: an entropy bonus for hard prompts that steers the entropy to a share of its initial value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts, Tokens, Update
from paec_loss.fields import non_negative, share
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AER(Method):
    """Loss term -alpha sum_t w H_t / N, w = max(0, 1 - accuracy / rho) of the token's prompt. A reconstruction.

    Its three parts are published without formulas: a difficulty weight, a target anchored at the initial entropy, and
    an adaptive coefficient. Here the accuracy of a prompt is the share of its responses with a graded reward above 0,
    and N is the number of tokens in the mini-batch. alpha starts at 0; before its updates, each step sets
    alpha <- max(0, alpha + eta (tau H_0 - H)), where H is the mean token entropy (nats) of the step's responses at its
    start and H_0 that of step 1.
    """

    paper: ClassVar[str] = "AER, arXiv 2510.10959, reconstructed from its abstract"
    on_policy: ClassVar[str] = "the same"
    spans: ClassVar[str] = "the group: its accuracy; the step: mean entropy; number of tokens"
    released: ClassVar[str] = (
        "no code was found: all formulas, rho and eta are our choice; tau is the best value according to a secondary "
        "description"
    )

    tau: float = non_negative(0.4, "target of the mean entropy as a share of the first step's")
    rho: float = share(0.5, "accuracy at and above which a prompt has no bonus")
    eta: float = non_negative(0.005, "change of alpha per step and nat below the target")

    def tracker(self) -> AlphaController:
        return AlphaController(self)

    def response_value(self, rollouts: Rollouts) -> Tensor:
        weights = torch.zeros_like(rollouts.rewards, dtype=torch.float64)
        for group in rollouts.groups():
            accuracy = (rollouts.rewards[group] > 0).double().mean()
            weights[group] = (1 - accuracy / self.rho).clamp_min(0)
        return weights

    def loss_term(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        bonus = tokens.total(tokens.response_value[:, None] * tokens.entropy)
        return bonus * (-update.tracker_signal["alpha"] / max(update.tokens, 1))


class AlphaController:
    """alpha, and the entropy of step 1 (None before it is measured)."""

    def __init__(self, config: AER) -> None:
        self.config = config
        self.alpha = 0.0
        self.first_entropy: float | None = None

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        entropy = rollouts.mean(rollouts.entropy)
        if self.first_entropy is None:
            self.first_entropy = entropy
        target = self.config.tau * self.first_entropy
        # In this order max keeps a NaN; max(0.0, nan) would hide it.
        self.alpha = max(self.alpha + self.config.eta * (target - entropy), 0.0)
        return {"entropy": entropy, "target": target, "alpha": self.alpha}

    def signal(self, step: int) -> dict[str, float]:
        return {"alpha": self.alpha}

    def state_dict(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "first_entropy": self.first_entropy}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        alpha, first = state.get("alpha"), state.get("first_entropy")
        numbers = [alpha] if first is None else [alpha, first]
        known = set(state) == {"alpha", "first_entropy"}
        if not known or not all(type(n) is float and math.isfinite(n) and n >= 0 for n in numbers):
            raise ValueError(
                f"aer state {state}: must be alpha and first_entropy, numbers >= 0; first_entropy is null before step 1"
            )
        self.alpha, self.first_entropy = alpha, first
