"""EMPG: confident steps of a response have a larger weight, and so do steps that lead to one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import non_negative, words
from paec_loss.method import Method
from paec_loss.pieces import own_tokens, token_spans

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EMPG(Method):
    """A g(h_s) + zeta exp(-k_next h_{s+1}) at the tokens of step s, minus the mean of this over all steps of the batch.

    h is the mean token entropy of a step, min-max scaled to [0, 1] over the batch; g(h) = exp(-k h) / mean of exp(-k h)
    over the steps. The last step of a response has no bonus. If all steps have the same entropy, h is 0. "The batch" is
    all responses that the driver processes together.

    In the paper a step is one turn of an agent. Here a response is one turn, so it is split into steps after every
    border, by default a blank line (our choice); without borders it is a single step.
    """

    paper: ClassVar[str] = "EMPG, arXiv 2509.09265, Eq. 7-12"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the step: smallest and largest entropy of a step, mean of exp(-k h), mean advantage"
    released: ClassVar[str] = "no code by the authors found; a third party's treats one response as one step"
    needs = {"token_texts"}

    k: float = non_negative(1.0, "strength with which a step's entropy scales its advantage")
    k_next: float = non_negative(1.0, "rate at which the bonus falls with the next step's entropy")
    zeta: float = non_negative(0.05, "weight of the bonus for a clear next step")
    borders: tuple[str, ...] = words(
        ("\n\n",), "texts that end a step (consecutive ones end a single step); empty: one step"
    )

    def advantages(self, rollouts: Rollouts) -> Tensor:
        inside = rollouts.response_mask
        step, owner = self._steps(rollouts)
        if not len(owner):
            return rollouts.at_tokens(rollouts.advantages)

        def step_mean(values: Tensor) -> Tensor:
            total = torch.zeros(len(owner), dtype=torch.float64, device=values.device)
            return total.index_add(0, step[inside], values[inside].double()) / sizes

        sizes = step[inside].bincount(minlength=len(owner))
        clarity = _scaled(step_mean(rollouts.entropy))
        factor = (-self.k * clarity).exp()
        factor = factor / factor.mean()
        bonus = self.zeta * (-self.k_next * clarity).exp()
        has_next = owner == owner.roll(-1)
        has_next[-1] = False
        bonus = torch.where(has_next, bonus.roll(-1), 0.0)
        modulated = rollouts.advantages * factor[step] + bonus[step]
        return rollouts.at_tokens(modulated - step_mean(modulated).mean())

    def _steps(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """[B, R] number of each token's step, counted over all responses, 0 at padding; [S] the row of each step."""
        border = re.compile(f"(?:{'|'.join(map(re.escape, self.borders))})+") if self.borders else None
        starts = torch.zeros(rollouts.response_mask.shape, dtype=torch.bool)
        for row, (pieces, columns) in zip(starts, own_tokens(rollouts), strict=True):
            found = border.finditer("".join(pieces)) if border else ()
            after = [stop for _, stop in token_spans(pieces, [match.span() for match in found])]
            row[columns[[i for i in (0, *after) if i < len(columns)]]] = True
        starts = starts.to(rollouts.response_mask.device)
        number = starts.flatten().cumsum(0).reshape(starts.shape) - 1
        return torch.where(rollouts.response_mask, number, 0), torch.nonzero(starts)[:, 0]


def _scaled(values: Tensor) -> Tensor:
    """[S] min-max scaled to [0, 1]; zeros if all values are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)
