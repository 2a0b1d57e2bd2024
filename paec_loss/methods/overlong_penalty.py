"""Soft overlong punishment: responses close to the maximum length are worth less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Rollouts
from paec_loss.fields import non_negative, share
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OverlongPenalty(Method):
    """Reward R - weight min(1, max(0, (L - L_max + b) / b)), L the response's tokens, b = buffer L_max.

    L_max is data.max_response_length, which limits the tokens of tools within the response too, so L has them as well.
    Up to L_max - b tokens the reward is R; from there on it falls linearly, to R - weight at L_max. The reward is
    passed to the advantage estimator. With base=dapo, as published, prompts whose responses were all graded the same
    are left out, whatever their lengths.
    """

    paper: ClassVar[str] = "DAPO, arXiv 2503.14476, Eq. 13 (soft overlong punishment)"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the response; only the advantage estimator compares responses"
    released: ClassVar[str] = (
        "the released code gives b in tokens (overlong_buffer.len); its rewards are +1 and -1, so beside rewards of 1 "
        "and 0 the same weight counts double"
    )

    buffer: float = share(0.2, "share of the maximum length that is penalised; published: 4096 of 20480 tokens")
    weight: float = non_negative(1.0, "penalty at the maximum length")

    def rewards(self, rollouts: Rollouts) -> Tensor:
        if rollouts.max_response_length is None:
            return rollouts.rewards
        buffer = self.buffer * rollouts.max_response_length
        excess = (rollouts.ends.double() - rollouts.max_response_length + buffer) / buffer
        return (rollouts.rewards - self.weight * excess.clamp(0, 1)).to(rollouts.rewards.dtype)
