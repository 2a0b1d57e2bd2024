"""DPPO: a token leaves the update when its probability has moved too far, not its ratio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Tokens, Update
from paec_loss.fields import choice, non_negative, positive
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLDS = {"tv": 0.15, "kl": 0.05}
"""Where `low` or `high` is not given."""
LEAST = 1e-8
"""Lower bound of 1 - p in the binary KL, for tokens that the policy is certain of."""


@dataclass(frozen=True)
class DPPO(Method):
    """Loss -sg(min(r, max_ratio)) A log p while the token's binary divergence is within the threshold, 0 beyond it.

    tv keeps a token if p - p_old <= high where A > 0, p_old - p <= low elsewhere. kl keeps it if p_old ln(p_old / p) +
    (1 - p_old) ln((1 - p_old) / (1 - p)) is at most high where A > 0, low elsewhere, or if p has moved against the
    advantage. sg stops the gradient. A token is either in the update or not; there is no clip range.
    """

    paper: ClassVar[str] = "DPPO (binary TV and KL), arXiv 2602.04879"
    on_policy: ClassVar[str] = "plain policy gradient: no probability has moved"
    released: ClassVar[str] = (
        "follows verl's dppo_tv and dppo_kl, where low, high and max_ratio are the run's clip range and dual clip; the "
        "thresholds are those of verl's script, which also switches max_ratio off (clip_ratio_c=10000), takes p_old "
        "from the rollout (bypass_mode) and is based on Dr. GRPO; the paper's were not compared"
    )

    uses_clip: ClassVar[bool] = False

    divergence: str = choice(("tv", "kl"), "tv", "what is compared with the threshold")
    low: float = non_negative(
        None, "threshold where A <= 0: null is a difference of probabilities of 0.15 with tv, 0.05 nats with kl"
    )
    high: float = non_negative(None, "the same where A > 0")
    max_ratio: float = positive(20.0, "largest weight of a token")

    def policy_loss(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        weight = tokens.log_ratio.detach().exp().clamp_max(self.max_ratio)
        return torch.where(self._with_thresholds()._kept(tokens), -weight * tokens.advantages * tokens.log_prob, 0.0)

    def _with_thresholds(self) -> DPPO:
        """The method with numbers where `low` or `high` is null."""
        default = THRESHOLDS[self.divergence]
        low, high = (default if value is None else value for value in (self.low, self.high))
        return replace(self, low=low, high=high)

    def _kept(self, tokens: Tokens) -> Tensor:
        """[B, R] bool, which tokens are within the threshold."""
        now, old = tokens.log_prob.detach().double(), tokens.old_log_prob.double()
        moved = now.exp() - old.exp()
        rising, falling = moved, -moved
        if self.divergence == "kl":
            rest, old_rest = ((-x.expm1()).clamp_min(LEAST) for x in (now, old))
            kl = old.exp() * (old - now) + old_rest * (old_rest / rest).log()
            rising, falling = torch.where(moved <= 0, 0.0, kl), torch.where(moved >= 0, 0.0, kl)
        # NaN is not beyond a threshold: its loss is NaN, not 0.
        return ~torch.where(tokens.advantages > 0, rising > self.high, falling > self.low)
