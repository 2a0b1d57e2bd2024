"""EPO: an entropy bonus, with a hinge that keeps the mean entropy near its past mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss.batch import Rollouts, Tokens, Update
from paec_loss.fields import non_negative, positive
from paec_loss.method import BatchMethod

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Corridor:
    """Position of the mini-batch's Hbar: `slope` -1 below, 0 inside, +1 above; `bound` is the bound it has crossed."""

    slope: int
    bound: float


@dataclass(frozen=True)
class EPO(BatchMethod[Corridor]):
    """Loss term -coefficient (Hbar - beta_k hinge), hinge = max(0, kappa_low m - Hbar) + max(0, Hbar - kappa_high m).

    Hbar is the mean entropy of the mini-batch's response tokens, m the mean of Hbar over the steps before this one,
    nats. Step k = 1 has no past and no hinge. beta_k = 1 + exp(-k / decay) is above 1, so the hinge outweighs the bonus
    beyond the upper bound.
    """

    paper: ClassVar[str] = "EPO, arXiv 2509.22576"
    on_policy: ClassVar[str] = "the same; statistics_from=step is then exact"
    spans: ClassVar[str] = "Hbar and number of tokens; over the steps the mean of Hbar"
    released: ClassVar[str] = (
        "the released penalty is a constant, without gradient, and its weight falls to 0.04; here the hinge has its "
        "gradient, and beta_k is that of a summary of the paper (the paper's own schedule was not seen)"
    )

    coefficient: float = non_negative(0.001, "weight of the mean entropy and of its hinge")
    kappa_low: float = non_negative(0.8, "lower bound of Hbar as a share of its past mean")
    kappa_high: float = positive(1.2, "upper bound of Hbar as a share of its past mean")
    decay: float = positive(75.0, "steps after which the hinge's weight has fallen from 2 to 1 + 1/e")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kappa_low > self.kappa_high:
            raise ValueError(
                f"method.kappa_low={self.kappa_low!r}: must not be above method.kappa_high={self.kappa_high!r}"
            )

    def tracker(self) -> EntropyHistory:
        return EntropyHistory()

    def prepare(self, batch: Tokens, update: Update) -> Corridor:
        past = update.tracker_signal.get("past_entropy")
        if past is None:
            return Corridor(0, 0.0)
        hbar, low, high = batch.mean(batch.entropy), self.kappa_low * past, self.kappa_high * past
        if hbar < low:
            return Corridor(-1, low)
        return Corridor(1, high) if hbar > high else Corridor(0, 0.0)

    def loss_term(self, tokens: Tokens, context: Corridor, update: Update) -> Tensor:
        beta = 1 + math.exp(-update.step / self.decay)
        hinge = context.slope * tokens.total(tokens.entropy - context.bound)
        return (beta * hinge - tokens.total(tokens.entropy)) * (self.coefficient / max(update.tokens, 1))

    def metrics(self, context: Corridor, sums: Mapping[str, float], update: Update) -> dict[str, float]:
        return {"outside": float(context.slope)}


class EntropyHistory:
    """Hbar of every step, measured before its updates."""

    def __init__(self) -> None:
        self._observations: list[float] = []

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        if rollouts.step != len(self._observations) + 1:
            raise ValueError(
                f"entropy history: observed step {rollouts.step} after {len(self._observations)} steps; observe each "
                "once and in order, or load the checkpoint of the run that this one resumes"
            )
        hbar = rollouts.mean(rollouts.entropy)
        if not math.isfinite(hbar):
            raise ValueError(f"entropy history: the mean entropy of step {rollouts.step} is {hbar}; must be a number")
        self._observations.append(hbar)
        return {"entropy": self._observations[-1]} | self.signal(rollouts.step)

    def signal(self, step: int) -> dict[str, float]:
        past = self._observations[: step - 1]
        return {"past_entropy": math.fsum(past) / len(past)} if past else {}

    def state_dict(self) -> dict[str, Any]:
        return {"observations": list(self._observations)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        values = state.get("observations")
        if set(state) != {"observations"} or not (
            isinstance(values, list) and all(isinstance(v, float) and math.isfinite(v) and v >= 0 for v in values)
        ):
            raise ValueError(f"entropy history state {state!r}: must be observations, a list of finite numbers >= 0")
        self._observations = list(values)
