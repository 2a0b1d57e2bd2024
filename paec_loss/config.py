"""The method's configuration: every default once, every bad value refused with one sentence.

Marks, as in the documentation: [P] published, [S] from secondary descriptions that agree, [D] a decision of this
project where nothing was found.
"""

from collections.abc import Callable
from dataclasses import dataclass

from paec_loss.fields import check_choice, check_number

_CHOICES: dict[str, tuple[str, ...]] = {
    "normalizer": ("log_nucleus", "none", "log_vocab"),
    "competition": ("ratio", "exp_tau", "sigmoid", "inverse"),
    "mask": ("ramp", "gated", "hard", "sigmoid", "none"),
    "quantile_scope": ("response", "mini_batch"),
    "average": ("count", "mass"),
    "entropy": ("full", "nucleus", "normalized"),
    "penalty": ("floor", "two_sided"),
    "statistics": ("step", "lagged", "exact"),
}

_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "top_p": (lambda v: 0 < v <= 1, "must be in (0, 1]; it is the probability mass that the nucleus holds"),
    "beta": (lambda v: 0 <= v <= 1, "must be in [0, 1]; it is the weight of competition against entropy in the score"),
    "rho": (
        lambda v: 0 <= v < 1,
        "must be in [0, 1); it is the quantile of the score above which positions are selected",
    ),
    "competition_tau": (lambda v: v > 0, "must be > 0; it is the scale in nats of competition=exp_tau"),
    "mask_width": (lambda v: v > 0, "must be > 0; it is the width in score of the ramp; for a step use mask=hard"),
    "rho_min": (
        lambda v: 0 < v <= 1,
        "must be in (0, 1), or 1 with penalty=two_sided; it is the floor as a share of the anchor",
    ),
    "lambda_ent": (lambda v: v >= 0, "must be >= 0; it is the weight of the entropy bonus, 0 switches it off"),
    "lambda_low": (lambda v: v >= 0, "must be >= 0; it is the weight of the penalty, 0 switches it off"),
}


@dataclass(frozen=True)
class PAECConfig:
    """Position-Aware Entropy Calibration (arXiv 2606.08543), one field per choice.

    This is a reconstruction: a field marked [D] is a decision of this project and names its alternatives.
    Integers are accepted for floats and stored as floats.

    Raises:
        ValueError: one sentence that names the field, its value and the remedy.
    """

    top_p: float = 0.8
    """Mass of the nucleus, the crossing token included. [P] a top-p nucleus; [D] the value. Also try 0.9, 0.95; 1 is
    the whole vocabulary."""

    beta: float = 0.3
    """Weight of competition in the score (1 - beta) * entropy + beta * competition. [S] the value; [D] the form.
    0 is entropy only, 1 is competition only."""

    rho: float = 0.8
    """Quantile of the score above which positions are selected: 0.8 selects the top 20 %. [S]. With `mask=none` nothing
    is selected by it, but `average=count` still divides by (1 - rho) * tokens: set 0 there to average over all."""

    normalizer: str = "log_nucleus"
    """What the nucleus entropy is divided by in the score. [S] that it is normalised; [D] by what: `log_nucleus`
    (log of the nucleus size), `none`, `log_vocab`."""

    competition: str = "ratio"
    """Competition from the gap D of the top two log-probs. [P] top-two competition; [D] the form: `ratio` exp(-D),
    `exp_tau` exp(-D / competition_tau), `sigmoid` 2 sigmoid(-D), `inverse` 1 / (1 + D)."""

    competition_tau: float = 1.0
    """Scale in nats of `competition=exp_tau`; unused by the other forms. [D]."""

    mask: str = "ramp"
    """Weight of a position of score s at threshold kappa. [P] soft, gradient stopped; [D] the form: `ramp`
    clip((s - kappa) / mask_width, 0, 1), `gated` s [s > kappa], `hard` [s > kappa], `sigmoid`
    sigmoid((s - kappa) / mask_width) (not sparse: an ablation), `none` 1 everywhere (the paper's "w/o soft mask")."""

    mask_width: float = 0.1
    """Width of `ramp` and `sigmoid` in units of the score. [D]."""

    quantile_scope: str = "response"
    """Tokens over which the quantile is taken. [D]: `response` (independent of how the batch is split) or
    `mini_batch`."""

    average: str = "count"
    """Denominator Z of the selected entropy. [D]: `count` (1 - rho) * response tokens, or `mass` sum of the mask, which
    hardly sees a position that has collapsed, because that position leaves the average."""

    entropy: str = "full"
    """Entropy that is regularised at the selected positions. [D]: `full` (no dead zone where a nucleus has collapsed to
    one token), `nucleus` (no gradient to the tail), `normalized` (the score's normalised nucleus entropy)."""

    anchor_steps: int = 4
    """Trainer steps 1..K over which the anchor is averaged; the penalty is off until then. [S] (Eq. 12-13)."""

    rho_min: float = 0.8
    """Floor as a share of the anchor. [S] that it is inside (0, 1); [D] the value, sweep 0.5 0.7 0.8 0.9. 1 only with
    `penalty=two_sided` (SIREN)."""

    lambda_ent: float = 0.001
    """Weight of the entropy bonus. [S] that the term exists; [D] the value, sweep 0, 2e-4, 1e-3, 5e-3. 0 is the "pure
    floor"."""

    lambda_low: float = 1.0
    """Weight of the penalty. [P] the penalty; [D] the value, sweep 0.05 .. 5. 0 is "no penalty"."""

    penalty: str = "floor"
    """Shape of the penalty. [S] `floor`: max(0, floor - selected entropy)^2; [D] `two_sided`: the square either way
    (SIREN)."""

    statistics: str = "step"
    """Where the batch statistic comes from. [D]: `step` (the log-prob pass: free, exact for the first update of a step,
    then slightly stale), `lagged` (the previous mini-batch's own forward), `exact` (one more forward)."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name, (accepts, remedy) in _RANGES.items():
            object.__setattr__(self, name, check_number(name, getattr(self, name), accepts, remedy))
        if self.rho_min == 1 and self.penalty != "two_sided":
            raise ValueError(f"method.rho_min={self.rho_min!r}: {_RANGES['rho_min'][1]}")
        if not isinstance(self.anchor_steps, int) or isinstance(self.anchor_steps, bool) or self.anchor_steps < 1:
            raise ValueError(
                f"method.anchor_steps={self.anchor_steps!r}: must be an integer >= 1; it is the number of trainer "
                "steps over which the anchor is averaged"
            )
