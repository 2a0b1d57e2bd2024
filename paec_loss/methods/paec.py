"""PAEC: position-aware entropy calibration, this project's subject. Fields and defaults: `paec_loss.config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss.calibration import (
    EntropyAnchor,
    Measurement,
    entropy_term,
    measure,
    penalty_coefficient,
    penalty_value,
    regularized_entropy,
)
from paec_loss.config import PAECConfig
from paec_loss.method import Method, Rollouts, Tokens, Update
from paec_loss.position import mask_from_score, position_mask, position_score, position_threshold
from paec_loss.summary import position_summary

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Calibration:
    """What the loss of a micro-batch needs to know about its mini-batch."""

    before: float
    """Hbar of the mini-batch, as measured before its update, in the unit of E_t."""
    coefficient: float
    """lambda_ent plus the penalty's slope at Hbar."""
    normalizer: float
    """Z of the mini-batch."""
    threshold: float | None
    """kappa of the mini-batch, or None where it is per response."""


@dataclass(frozen=True)
class PAEC(PAECConfig, Method):
    """Loss term -lambda_ent Hbar + lambda_low max(0, H_low - Hbar)^2 over softly selected tokens.

    Hbar = sum_t m_t E_t / Z; m_t from nucleus entropy and top-two competition, without gradient; H_low a share of the
    mean Hbar of the first steps. A reconstruction: README.md says which parts are published.
    """

    paper: ClassVar[str] = "PAEC, arXiv 2606.08543, Eq. 12-13"
    on_policy: ClassVar[str] = "the same; statistics=step is then exact"
    spans: ClassVar[str] = "selected entropy Hbar and its denominator Z; with quantile_scope=mini_batch the threshold"

    def __post_init__(self) -> None:
        PAECConfig.__post_init__(self)

    def tracker(self) -> PAECTracker:
        return PAECTracker(self)

    def prepare(self, batch: Tokens, update: Update) -> Calibration:
        statistics = batch.statistics
        threshold = None
        if self.quantile_scope == "mini_batch":
            score = position_score(statistics, self)
            threshold = float(position_threshold(score, batch.response_mask, self))
        return self._calibration(measure(statistics, batch.response_mask, self, threshold=threshold), update)

    def carry(self, context: Calibration, totals: list[float], update: Update) -> Calibration:
        weighted, mass, tokens = totals
        scale = update.tokens / tokens if tokens else 0.0
        previous = Measurement(weighted * scale, mass * scale, update.tokens, context.threshold)
        return self._calibration(previous, update)

    def _calibration(self, measurement: Measurement, update: Update) -> Calibration:
        hbar = measurement.selected_entropy(self)
        return Calibration(
            before=hbar,
            coefficient=penalty_coefficient(hbar, update.signal.get("floor"), self),
            normalizer=measurement.normalizer(self),
            threshold=measurement.threshold,
        )

    def _mask(self, tokens: Tokens, context: Calibration) -> Tensor:
        return position_mask(tokens.statistics, tokens.response_mask, self, threshold=context.threshold)

    def loss_term(self, tokens: Tokens, context: Calibration, update: Update) -> Tensor:
        return entropy_term(
            tokens.statistics,
            self._mask(tokens, context),
            coefficient=context.coefficient,
            normalizer=context.normalizer,
            config=self,
        )

    def report(self, tokens: Tokens, context: Calibration, update: Update) -> list[float]:
        entropy = regularized_entropy(tokens.statistics.detach(), self)
        local = Measurement.of(entropy, self._mask(tokens, context), tokens.response_mask)
        return [local.weighted_entropy, local.mass, local.tokens]

    def metrics(self, context: Calibration, totals: list[float], update: Update) -> dict[str, float]:
        now = Measurement(*totals, threshold=context.threshold)
        measured = now.selected_entropy(self)
        return {
            "update_selected_entropy": measured,
            "update_staleness": context.before - measured,
            "update_coefficient": context.coefficient,
            "update_penalty": penalty_value(measured, update.signal.get("floor"), self),
            "update_mask_mass": now.mass / now.tokens if now.tokens else 0.0,
        }


class PAECTracker:
    """The anchor over steps 1..K, the floor that comes from it, and a step's metrics."""

    def __init__(self, config: PAECConfig) -> None:
        self.config = config
        self.anchor = EntropyAnchor(config)

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        config, statistics, inside = self.config, rollouts.statistics, rollouts.response_mask
        score = position_score(statistics, config)
        mask = mask_from_score(score, inside, config, position_threshold(score, inside, config))
        hbar = Measurement.of(regularized_entropy(statistics, config), mask, inside).selected_entropy(config)
        if rollouts.step <= config.anchor_steps:
            self.anchor.observe(rollouts.step, hbar)
        penalty = penalty_value(hbar, self.anchor.floor(rollouts.step), config)
        return position_summary(statistics, mask, inside, config) | {
            "selected_entropy": hbar,
            "anchor": self.anchor.value,
            "floor": config.rho_min * self.anchor.value,
            "penalty": penalty,
            "penalty_active": float(penalty > 0.0),
        }

    def signal(self, step: int) -> dict[str, float]:
        floor = self.anchor.floor(step)
        return {} if floor is None else {"floor": floor}

    def state_dict(self) -> dict[str, Any]:
        return self.anchor.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchor.load_state_dict(state)
