"""Entropy at the selected positions: its measurement, its anchor, and the loss term that keeps it above a floor.

The loss of an optimizer mini-batch is -lambda_ent * Hbar + lambda_low * max(0, H_low - Hbar)^2 with
Hbar = sum_t m_t E_t / Z over all of its micro-batches and ranks [S]. If Hbar and Z are known beforehand, as constants,
its gradient is, for any split, the sum over micro-batches of the gradient of
-(lambda_ent + 2 lambda_low max(0, H_low - Hbar)) * sum_t m_t E_t / Z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paec_loss import _torch as torch
from paec_loss.position import divide_by_normalizer, mask_and_threshold

if TYPE_CHECKING:
    from torch import Tensor

    from paec_loss.methods.paec import PAEC
    from paec_loss.statistics import TokenStatistics


def regularized_entropy(stats: TokenStatistics, config: PAEC) -> Tensor:
    """Entropy E_t [...] that the loss acts on, with gradient, in the dtype of stats.entropy ([D] which one).

    `full` over the vocabulary and `nucleus` inside the nucleus, both in nats; `normalized` the score's Hhat_t.
    """
    if config.entropy == "full":
        return stats.entropy
    if config.entropy == "nucleus":
        return stats.nucleus_entropy
    return divide_by_normalizer(stats.nucleus_entropy, stats, config)


@dataclass(frozen=True)
class Measurement:
    """Sums over response tokens that give the selected entropy; `+` joins micro-batches and ranks."""

    weighted_entropy: float
    """Sum of m_t E_t, in the unit of E_t (nats, or a share with entropy=normalized)."""

    mass: float
    """Sum of m_t."""

    tokens: int
    """Number of response tokens."""

    threshold: float | None
    """The mini-batch's kappa with quantile_scope=mini_batch; None if each response has its own threshold."""

    @classmethod
    def of(cls, entropy: Tensor, mask: Tensor, response_mask: Tensor, threshold: float | None = None) -> Measurement:
        """The sums over tokens with entropy E_t, mask m_t and response mask, all of one shape; float64, no gradient."""
        return cls(
            weighted_entropy=_weighted_sum(mask, entropy.detach()).item(),
            mass=mask.sum(dtype=torch.float64).item(),
            tokens=int((response_mask != 0).sum()),
            threshold=threshold,
        )

    def __add__(self, other: Measurement) -> Measurement:
        """The measurement of both; ValueError when they were taken at different thresholds."""
        both_nan = self.threshold != self.threshold and other.threshold != other.threshold
        if self.threshold != other.threshold and not both_nan:
            raise ValueError(
                f"measurements at thresholds {self.threshold} and {other.threshold} cannot be added: measure every "
                "micro-batch at the threshold of its mini-batch"
            )
        return Measurement(
            self.weighted_entropy + other.weighted_entropy,
            self.mass + other.mass,
            self.tokens + other.tokens,
            self.threshold,
        )

    def normalizer(self, config: PAEC) -> float:
        """Denominator Z ([D]): `mass` sum of m_t, `count` (1 - rho) * response tokens."""
        return self.mass if config.average == "mass" else (1 - config.rho) * self.tokens

    def selected_entropy(self, config: PAEC) -> float:
        """Hbar = sum m E / Z, in the unit of E_t; 0 when Z is 0 (no token, or none selected)."""
        normalizer = self.normalizer(config)
        return 0.0 if normalizer == 0 else self.weighted_entropy / normalizer


def measure(
    stats: TokenStatistics, response_mask: Tensor, config: PAEC, *, threshold: Tensor | float | None = None
) -> Measurement:
    """Measurement over the tokens given, without gradient, summed in float64.

    Args:
        stats: fields [B, L], or [L] for one response.
        response_mask: the same shape; nonzero marks a response token.
        config: the mask, the entropy and, with quantile_scope=mini_batch, the scope.
        threshold: as for position_mask: needed if these tokens are only a part of a mini-batch that has one threshold.
    """
    mask, threshold = mask_and_threshold(stats, response_mask, config, threshold)
    shared = float(threshold) if config.quantile_scope == "mini_batch" else None
    return Measurement.of(regularized_entropy(stats, config), mask.to(stats.entropy.dtype), response_mask, shared)


def penalty_coefficient(selected_entropy: float, floor: float | None, config: PAEC) -> float:
    """Coefficient of -grad Hbar in the gradient of the loss: lambda_ent + 2 lambda_low max(0, floor - Hbar).

    `two_sided` takes the gap without the max. A floor of None (the anchor steps: penalty off) leaves lambda_ent.
    """
    return config.lambda_ent + 2 * config.lambda_low * _gap(selected_entropy, floor, config)


def penalty_value(selected_entropy: float, floor: float | None, config: PAEC) -> float:
    """lambda_low max(0, floor - Hbar)^2 [S]; `two_sided` squares the gap either way; 0 for a floor of None."""
    return config.lambda_low * _gap(selected_entropy, floor, config) ** 2


def entropy_term(
    stats: TokenStatistics, mask: Tensor, *, coefficient: float, normalizer: float, config: PAEC
) -> Tensor:
    """A micro-batch's share of the loss, -coefficient * sum_t m_t E_t / Z: a scalar with gradient, E_t's dtype.

    Over any split of the mini-batch the gradients of these terms sum to the gradient of
    -lambda_ent Hbar + lambda_low max(0, H_low - Hbar)^2 [S]. The value is that of the surrogate, not of the loss; for
    logging, use Hbar and penalty_value.

    Args:
        stats: fields [...]; values where the mask is 0 have no effect, even NaN.
        mask: [...], from position_mask; detached here.
        coefficient: penalty_coefficient of the mini-batch.
        normalizer: Z of the full mini-batch, all ranks included; a caller whose gradients are averaged over ranks
            multiplies the term by their number. With 0 the term is 0, but still connected to the graph.
        config: selects the entropy that is regularised.

    Raises:
        ValueError: a negative normalizer.
    """
    if normalizer < 0:
        raise ValueError(f"normalizer={normalizer!r}: must be >= 0; it is the mass of a mask or a number of tokens")
    entropy = regularized_entropy(stats, config)
    if normalizer == 0:
        return _weighted_sum(torch.zeros_like(mask), entropy).to(entropy.dtype)
    return (_weighted_sum(mask.detach(), entropy) * (-coefficient / normalizer)).to(entropy.dtype)


class EntropyAnchor:
    """Anchor H_0: the mean of the selected entropy over trainer steps 1..K, then frozen ([S], Eq. 12-13).

    Its state belongs in the checkpoint: a resumed run keeps the anchor of the original run.
    """

    def __init__(self, config: PAEC) -> None:
        self._steps = config.anchor_steps
        self._rho_min = config.rho_min
        self._observations: list[float] = []

    @property
    def value(self) -> float | None:
        """H_0, the mean so far, in the unit of E_t; None before the first observation."""
        return math.fsum(self._observations) / len(self._observations) if self._observations else None

    @property
    def level(self) -> float | None:
        """rho_min * H_0, the floor if the anchor were complete; None before the first observation."""
        value = self.value
        return None if value is None else self._rho_min * value

    @property
    def frozen(self) -> bool:
        """Whether all K steps have been observed."""
        return len(self._observations) == self._steps

    def observe(self, step: int, selected_entropy: float) -> None:
        """Takes Hbar of trainer step `step`, measured before that step's updates; steps after K change nothing.

        Raises:
            ValueError: a step out of order (repeated, skipped or below 1), or a value that is not finite.
        """
        if self.frozen and step > self._steps:
            return
        if step != len(self._observations) + 1:
            raise ValueError(
                f"anchor: observed step {step} after {len(self._observations)} of the steps 1..{self._steps}; observe "
                "each of them once and in order"
            )
        if not math.isfinite(selected_entropy):
            raise ValueError(f"anchor: the selected entropy of step {step} is {selected_entropy}; must be finite")
        self._observations.append(float(selected_entropy))

    def floor(self, step: int) -> float | None:
        """H_low = rho_min * H_0 for the updates of trainer step `step`; None while step <= K (the penalty is off).

        Raises:
            ValueError: step > K with steps of the anchor not observed.
        """
        if step <= self._steps:
            return None
        if not self.frozen:
            raise ValueError(
                f"anchor: step {step} needs the anchor of steps 1..{self._steps}, only {len(self._observations)} "
                "observed; load the checkpoint of the run that this one resumes, or call observed(trackers, rollouts) "
                "in every step"
            )
        return self.level

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON types."""
        return {"anchor_steps": self._steps, "observations": list(self._observations)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replaces the state; ValueError for a different anchor_steps, or for an invalid state."""
        if set(state) != {"anchor_steps", "observations"}:
            raise ValueError(f"anchor state has keys {sorted(state)}; must be anchor_steps and observations")
        if state["anchor_steps"] != self._steps:
            raise ValueError(
                f"anchor state has anchor_steps {state['anchor_steps']}, but the configuration has {self._steps}: set "
                f"method.anchor_steps={state['anchor_steps']} to resume, or start from step 1"
            )
        observations = [float(value) for value in state["observations"]]
        if len(observations) > self._steps or not all(math.isfinite(value) for value in observations):
            raise ValueError(f"anchor state has observations {observations}: must be at most {self._steps}, all finite")
        self._observations = observations


def _gap(selected_entropy: float, floor: float | None, config: PAEC) -> float:
    if floor is None:
        return 0.0
    gap = floor - selected_entropy
    # In this order max keeps a NaN; max(0.0, nan) would hide it.
    return max(gap, 0.0) if config.penalty == "floor" else gap


def _weighted_sum(mask: Tensor, entropy: Tensor) -> Tensor:
    """Sum of mask * entropy in float64; selected by where, because 0 * NaN at padding would be NaN."""
    return torch.where(mask != 0, mask * entropy, 0.0).sum(dtype=torch.float64)
