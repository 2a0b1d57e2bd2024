"""PPL-based advantage: within a group, responses of low perplexity have a larger weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import between, non_negative
from paec_loss.method import Method

if TYPE_CHECKING:
    from torch import Tensor

REACH = 1.5
"""Log-perplexities further than this many interquartile ranges outside the quartiles are outliers."""
EPSILON = 1e-8
"""Constant added to the standard deviation."""


@dataclass(frozen=True)
class PPLAdvantage(Method):
    """A_i clamp(1 - alpha z_i, 1 - width, 1 + width), z_i the response's standardised log-perplexity in its group.

    The log-perplexity is -mean_t log pi_old, nats. Outliers of the group (beyond 1.5 interquartile ranges, quartiles
    interpolated) are left out of the mean and of the population standard deviation; their own weight is clamped.
    """

    paper: ClassVar[str] = "Decomposing the entropy-performance exchange, arXiv 2508.02260, PPL-based shaping"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = "the group: mean and deviation of the log-perplexity"
    released: ClassVar[str] = "the released code computes the weight and never applies it; here it is applied"

    alpha: float = non_negative(0.01, "weight of the standardised log-perplexity; 0 leaves the advantages unchanged")
    width: float = between(0, 1, 0.2, "the factor of the advantage stays in [1 - width, 1 + width]")

    least_responses = 2

    def advantages(self, rollouts: Rollouts) -> Tensor:
        log_perplexity = -rollouts.response_mean(rollouts.log_prob)
        factor = torch.ones_like(log_perplexity)
        for group in rollouts.groups():
            factor[group] = 1 - self.alpha * _standardised(log_perplexity[group])
        return rollouts.at_tokens(rollouts.advantages * factor.clamp(1 - self.width, 1 + self.width)[:, None])


def _standardised(values: Tensor) -> Tensor:
    """[M] (values - mean) / std, with mean and std over the values that are not outliers."""
    first, third = values.quantile(0.25), values.quantile(0.75)
    reach = REACH * (third - first)
    usual = values[(values >= first - reach) & (values <= third + reach)]
    return (values - usual.mean()) / (usual.std(correction=0) + EPSILON)
