"""PAEC: position-aware entropy calibration, the subject of this project.

Marks at the fields, as in the documentation: [P] published, [S] from secondary descriptions that agree, [D] our
decision where nothing was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss.batch import Rollouts, Tokens, Update
from paec_loss.calibration import (
    EntropyAnchor,
    Measurement,
    entropy_term,
    measure,
    penalty_coefficient,
    penalty_value,
    regularized_entropy,
)
from paec_loss.fields import below_one, between, choice, non_negative, positive, share, whole
from paec_loss.method import BatchMethod
from paec_loss.position import mask_and_threshold, position_mask, position_score, position_threshold
from paec_loss.summary import position_summary

if TYPE_CHECKING:
    from torch import Tensor


_RHO_MIN = "must be in (0, 1), or 1 with penalty=two_sided"
"""Range of `rho_min`, which depends on another field."""


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
class PAEC(BatchMethod[Calibration]):
    """Loss term -lambda_ent Hbar + lambda_low max(0, H_low - Hbar)^2 over softly selected tokens.

    Hbar = sum_t m_t E_t / Z. The mask m_t comes from nucleus entropy and top-two competition and has no gradient. The
    floor H_low is a share of the anchor, the mean Hbar of the first steps. This is a reconstruction: docs/paec.md says
    which parts are published.
    """

    paper: ClassVar[str] = "PAEC, arXiv 2606.08543, Eq. 12-13"
    on_policy: ClassVar[str] = "the same; statistics_from=step is then exact"
    spans: ClassVar[str] = "selected entropy Hbar and its denominator Z; with quantile_scope=mini_batch the threshold"

    top_p: float = share(0.8, "probability mass that the nucleus holds")
    """The crossing token is inside. [P] a top-p nucleus; [D] the value. Also try 0.9, 0.95; 1 is the whole
    vocabulary."""

    beta: float = between(0, 1, 0.3, "weight of competition against entropy in the score")
    """The score is (1 - beta) * entropy + beta * competition. [S] the value; [D] the form. 0 is entropy only, 1 is
    competition only."""

    rho: float = below_one(0.8, "quantile of the score above which positions are selected")
    """0.8 selects the top 20 %. [S]. With `mask=none` it selects nothing, but `average=count` still divides by
    (1 - rho) * tokens: set it to 0 to average over all tokens."""

    normalizer: str = choice(
        ("log_nucleus", "none", "log_vocab"), "log_nucleus", "what the nucleus entropy is divided by in the score"
    )
    """`log_nucleus` is the log of the nucleus size. [S] that it is normalised; [D] by what."""

    competition: str = choice(
        ("ratio", "exp_tau", "sigmoid", "inverse"), "ratio", "competition as a function of the gap D of the top two"
    )
    """D is the difference of the two log-probs: `ratio` exp(-D), `exp_tau` exp(-D / competition_tau), `sigmoid`
    2 sigmoid(-D), `inverse` 1 / (1 + D). [P] top-two competition; [D] the form."""

    competition_tau: float = positive(1.0, "scale in nats of competition=exp_tau")
    """The other forms do not use it. [D]."""

    mask: str = choice(("ramp", "gated", "hard", "sigmoid", "none"), "ramp", "weight of a position, from its score")
    """For a position of score s at threshold kappa: `ramp` clip((s - kappa) / mask_width, 0, 1), `gated` s [s > kappa],
    `hard` [s > kappa], `sigmoid` sigmoid((s - kappa) / mask_width) (not sparse: an ablation), `none` 1 everywhere (the
    paper's "w/o soft mask"). [P] soft, gradient stopped; [D] the form."""

    mask_width: float = positive(0.1, "width in score of the ramp; for a step use mask=hard")
    """`sigmoid` uses it too. [D]."""

    quantile_scope: str = choice(("response", "mini_batch"), "response", "tokens over which the quantile is taken")
    """[D]. `response` does not depend on how the batch is split."""

    average: str = choice(("count", "mass"), "count", "denominator Z of the selected entropy")
    """`count` is (1 - rho) * response tokens, `mass` the sum of the mask. A collapsed position leaves the average, so
    `mass` hardly sees the collapse. [D]."""

    entropy: str = choice(
        ("full", "nucleus", "normalized"), "full", "entropy that is regularised at the selected positions"
    )
    """`full` has no dead zone where a nucleus has collapsed to one token; `nucleus` sends no gradient to the tail;
    `normalized` is the score's normalised nucleus entropy. [D]."""

    anchor_steps: int = whole(4, "number of trainer steps over which the anchor is averaged")
    """Trainer steps 1..K; the penalty is off until then. [S] (Eq. 12-13)."""

    rho_min: float = share(0.8, "floor as a share of the anchor", remedy=_RHO_MIN)
    """[S] that it is inside (0, 1); [D] the value, sweep 0.5 0.7 0.8 0.9. 1 is SIREN's."""

    lambda_ent: float = non_negative(0.001, "weight of the entropy bonus, 0 switches it off")
    """[S] that the term exists; [D] the value, sweep 0, 2e-4, 1e-3, 5e-3. 0 is the "pure floor"."""

    lambda_low: float = non_negative(1.0, "weight of the penalty, 0 switches it off")
    """[P] the penalty; [D] the value, sweep 0.05 .. 5. 0 is "no penalty"."""

    penalty: str = choice(("floor", "two_sided"), "floor", "shape of the penalty")
    """[S] `floor`: max(0, floor - selected entropy)^2; [D] `two_sided`: the square on both sides (SIREN)."""

    statistics_from: str = "step"
    """[D] The log-prob pass: free, exact for the first update of a step, then slightly stale."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rho_min == 1 and self.penalty != "two_sided":
            raise ValueError(f"method.rho_min={self.rho_min!r}: {_RHO_MIN}; it is the floor as a share of the anchor")

    def tracker(self) -> PAECTracker:
        return PAECTracker(self)

    def prepare(self, batch: Tokens, update: Update) -> Calibration:
        threshold = None
        if self.quantile_scope == "mini_batch":
            score = position_score(batch.statistics, self)
            threshold = float(position_threshold(score, batch.response_mask, self))
        measured = measure(batch.statistics, batch.response_mask, self, threshold=threshold)
        hbar = measured.selected_entropy(self)
        return Calibration(
            before=hbar,
            coefficient=penalty_coefficient(hbar, update.tracker_signal.get("floor"), self),
            normalizer=measured.normalizer(self),
            threshold=threshold,
        )

    def _mask(self, tokens: Tokens, context: Calibration) -> Tensor:
        return position_mask(tokens.statistics, tokens.response_mask, self, threshold=context.threshold)

    def token_weights(self, tokens: Tokens, context: Calibration, update: Update) -> Tensor:
        return self._mask(tokens, context)

    def loss_term(self, tokens: Tokens, context: Calibration, update: Update) -> Tensor:
        return entropy_term(
            tokens.statistics,
            self.token_weights(tokens, context, update),
            coefficient=context.coefficient,
            normalizer=context.normalizer,
            config=self,
        )

    def local_sums(self, tokens: Tokens, context: Calibration, update: Update) -> dict[str, float]:
        entropy = regularized_entropy(tokens.statistics.detach(), self)
        local = Measurement.of(entropy, self._mask(tokens, context), tokens.response_mask)
        return {"weighted_entropy": local.weighted_entropy, "mass": local.mass, "tokens": local.tokens}

    def metrics(self, context: Calibration, sums: Mapping[str, float], update: Update) -> dict[str, float]:
        now = Measurement(**sums, threshold=context.threshold)
        measured = now.selected_entropy(self)
        return {
            "update_selected_entropy": measured,
            "update_staleness": context.before - measured,
            "update_coefficient": context.coefficient,
            "update_penalty": penalty_value(measured, update.tracker_signal.get("floor"), self),
            "update_mask_mass": now.mass / now.tokens if now.tokens else 0.0,
        }


class PAECTracker:
    """The anchor over steps 1..K, the floor derived from it, and the metrics of a step."""

    def __init__(self, config: PAEC) -> None:
        self.config = config
        self.anchor = EntropyAnchor(config)

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        config, statistics, inside = self.config, rollouts.statistics, rollouts.response_mask
        mask, _ = mask_and_threshold(statistics, inside, config)
        hbar = Measurement.of(regularized_entropy(statistics, config), mask, inside).selected_entropy(config)
        if rollouts.step <= config.anchor_steps:
            self.anchor.observe(rollouts.step, hbar)
        penalty = penalty_value(hbar, self.anchor.floor(rollouts.step), config)
        return position_summary(statistics, mask, inside, config) | {
            "selected_entropy": hbar,
            "anchor": self.anchor.value,
            "floor": self.anchor.level,
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
