"""Pass@k training: a response is worth what it adds to the chance that one of k responses is right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import choice, whole
from paec_loss.method import DEVIATION_EPSILON, Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PassAtK(Method):
    """(P - rho) / (sqrt(rho (1 - rho)) + 1e-6), rho the prompt's pass@k, P the pass@k of the sets with this response.

    Of a prompt's G responses, c are right (reward above 0), and rho(G, c, k) = 1 - C(G - c, k) / C(G, k). P is 1 for a
    right response and rho(G - 1, c, k - 1) for a wrong one. With k = 1 this is GRPO on right and wrong answers, with
    the population deviation; with k = G no response has an advantage. With estimator=unbiased, A = (k / G) P - k /
    (G - 1) rho(G - 1, c', k), where c' is the number of right ones among the other responses. The policy gradient is
    then an unbiased estimate of the gradient of pass@k; this needs G > k. Prompts with too few responses have no
    advantage. verl's `grpo_passk` is a different method: only the best response has an advantage, its margin over the
    second best.
    """

    paper: ClassVar[str] = "Pass@k training, arXiv 2508.10751; unbiased: PKPO, arXiv 2505.15201"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: its number of right responses"
    released: ClassVar[str] = (
        "text and code agree for pass@k training; PKPO is written from a third party's code, which takes rewards of "
        "any value, here only right and wrong; the paper's second baseline, from k - 1 responses, is left out"
    )
    own_advantages: ClassVar[bool] = True
    binary_rewards = True

    k: int = whole(4, "number of responses of which one must be right")
    estimator: str = choice(
        ("standardized", "unbiased"), "standardized", "advantages over a deviation, or with a leave-one-out baseline"
    )

    @property
    def least_responses(self) -> int:
        return self.k + 1

    def advantages(self, rollouts: Rollouts) -> Tensor:
        right = rollouts.rewards > 0
        result = torch.zeros_like(right, dtype=torch.float64)
        needed = self.k + (self.estimator == "unbiased")
        groups = rollouts.groups()
        if groups and max(map(len, groups)) < needed:
            raise ValueError(
                f"method.k={self.k}: no prompt has {needed} responses, which it needs: lower it, or draw more per "
                "prompt"
            )
        values = _standardized if self.estimator == "standardized" else _unbiased
        for group in groups:
            if len(group) >= needed:
                of_right, of_wrong = values(len(group), int(right[group].sum()), self.k)
                result[group] = of_wrong
                result[group[right[group]]] = of_right
        return rollouts.at_tokens(result)


def _rho(n: int, right: int, k: int) -> float:
    """Share of the sets of k out of n responses, `right` of them right, that contain a right one."""
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def _standardized(n: int, right: int, k: int) -> tuple[float, float]:
    """Advantages of a right and of a wrong response; 0 for a kind that the group does not have."""
    rho = _rho(n, right, k)
    deviation = math.sqrt(rho * (1 - rho)) + DEVIATION_EPSILON
    of_wrong = (_rho(n - 1, right, k - 1) - rho) / deviation if right < n else 0.0
    return ((1 - rho) / deviation if right else 0.0), of_wrong


def _unbiased(n: int, right: int, k: int) -> tuple[float, float]:
    """The same for estimator=unbiased."""
    of_right = k / n - k / (n - 1) * _rho(n - 1, right - 1, k) if right else 0.0
    of_wrong = k / n * _rho(n - 1, right, k - 1) - k / (n - 1) * _rho(n - 1, right, k) if right < n else 0.0
    return of_right, of_wrong
