"""ETTRL's advantage reshaping: confident responses of a group have a larger weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ETTRLAdvantage(Method):
    """A_i (1 + (Hbar - H_i) / Hbar), H_i the response's mean token entropy and Hbar the mean of its group's H_i, nats.

    The factor is 2 - H_i / Hbar, without a bound: it is negative for a response with more than twice the mean entropy.
    If Hbar is 0 the advantages are unchanged.
    """

    paper: ClassVar[str] = "ETTRL, arXiv 2508.11356, its advantage reshaping (Adv-Res), without its tree rollout"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: its mean entropy"
    released: ClassVar[str] = "no code by the authors found; this follows the text"

    least_responses = 2

    def advantages(self, rollouts: Rollouts) -> Tensor:
        entropy = rollouts.response_mean(rollouts.entropy)
        factor = torch.ones_like(entropy)
        for group in rollouts.groups():
            mean = entropy[group].mean()
            if mean > 0:
                factor[group] = 1 + (mean - entropy[group]) / mean
        return rollouts.at_tokens(rollouts.advantages * factor[:, None])
