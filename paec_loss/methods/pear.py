"""PEAR: the more uncertain the thinking, the less a correct answer is worth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import number, words
from paec_loss.method import Method
from paec_loss.pieces import own_tokens, token_spans

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PEAR(Method):
    """Reward of a correct response: min(1, R - max(0, Hbar_think - alpha Hbar_answer)), nats; others are unchanged.

    Hbar is the mean token entropy before and after the first marker, whose tokens count in neither. Without a marker
    the complete response is thinking and Hbar_answer is 0. Correct means a reward above 0. Prompts to which all
    responses are correct are learnt from as well, but not with base=dapo, which leaves them out.
    """

    paper: ClassVar[str] = "PEAR, arXiv 2510.08026, Eq. 5-7"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the response; only the advantage estimator compares responses"
    released: ClassVar[str] = "the authors' code was not available for a comparison; this follows the text"
    needs = {"token_texts"}

    alpha: float = number(1.0, "weight of the answer's entropy; 0 penalises all entropy of the thinking")
    markers: tuple[str, ...] = words(("</think>",), "texts that end the thinking; the first occurrence of any counts")

    def rewards(self, rollouts: Rollouts) -> Tensor:
        entropy = rollouts.entropy.double()
        penalty = torch.zeros_like(rollouts.rewards, dtype=torch.float64)
        for i, (pieces, columns) in enumerate(own_tokens(rollouts)):
            stop, resume = self._phases(pieces)
            thinking, answer = _mean(entropy[i, columns[:stop]]), _mean(entropy[i, columns[resume:]])
            # In this order max keeps a NaN; max(0.0, nan) would hide it.
            penalty[i] = max(thinking - self.alpha * answer, 0.0)
        shaped = (rollouts.rewards - penalty).clamp(max=1).to(rollouts.rewards.dtype)
        return torch.where(rollouts.rewards > 0, shaped, rollouts.rewards)

    def _phases(self, pieces: list[str]) -> tuple[int, int]:
        """The token at which the thinking ends, and the one at which the answer begins."""
        found = re.search("|".join(map(re.escape, self.markers)), "".join(pieces)) if self.markers else None
        return token_spans(pieces, [found.span()])[0] if found else (len(pieces), len(pieces))


def _mean(values: Tensor) -> float:
    return values.mean().item() if values.numel() else 0.0
