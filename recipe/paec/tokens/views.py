"""What each method does to each token of a page; every number comes from `paec_loss`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paec_loss import PAEC, Clip, TokenStatistics, competition, normalized_entropy
from paec_loss.batch import Update
from paec_loss.position import position_score, position_threshold
from paec_loss.weights import Missing, NoWeights, TokenWeights, at_nucleus, weights_of
from recipe.paec.tokens.settings import Named
from recipe.paec.tokens.sources import Response, Source, rollouts_of

CLIP = Clip(0.2, 0.2, 3.0)
"""The surrogate's range where no run says it; at ratio 1 nothing is clipped, whatever it is."""


@dataclass(frozen=True)
class View:
    """One method's view of one source, or why there is none."""

    weights: TokenWeights | None
    reason: str = ""
    score: Tensor | None = None
    """[B, R] score of PAEC's kind of methods."""
    threshold: Tensor | None = None
    """[B] the threshold of each response's score."""


@dataclass(frozen=True)
class Details:
    """[B, R] each, float64: what a page shows of a token whatever the method; NaN where it is not known."""

    log_prob: Tensor
    entropy: Tensor
    nucleus_entropy: Tensor
    normalized_entropy: Tensor
    competition: Tensor
    nucleus_mass: Tensor
    nucleus_size: Tensor


def view_of(named: Named, source: Source, page: Sequence[Response]) -> View:
    """The weights of a method over the responses of a source."""
    method = named.method
    top_p = method.top_p if method.top_p in source.statistics else next(iter(source.statistics))
    try:
        statistics = at_nucleus(source.statistics[top_p], top_p, method)
        rollouts, numbers = rollouts_of(source, statistics, page)
        tokens = int(rollouts.response_mask.sum())
        update = Update(step=source.step, seed=source.seed, tokens=tokens, clip=method.clip(CLIP))
        weights = weights_of(method, rollouts, numbers, update)
    except (Missing, NoWeights) as error:
        return View(None, str(error))
    if not isinstance(method, PAEC) or method.mask == "none":
        return View(weights)
    score = position_score(statistics, method)
    threshold = position_threshold(score, rollouts.response_mask, method).reshape(-1)
    return View(weights, "", score, threshold.expand(len(source.rows)))


def details_of(source: Source, config: PAEC) -> Details:
    """What is shown of every token, normalised entropy and competition in the form of `config`."""
    known = config.top_p in source.statistics
    statistics = source.statistics[config.top_p if known else next(iter(source.statistics))]
    unknown = torch.full_like(statistics.entropy, torch.nan)
    return Details(
        log_prob=statistics.log_prob,
        entropy=statistics.entropy,
        nucleus_entropy=statistics.nucleus_entropy if known else unknown,
        normalized_entropy=normalized_entropy(statistics, config) if known else unknown,
        competition=competition(statistics, config),
        nucleus_mass=statistics.nucleus_mass if known else unknown,
        nucleus_size=_size(statistics) if known else unknown,
    )


def difference_of(source: Source) -> Tensor | None:
    """[B, R] vLLM's log-prob minus the actor's, nats; NaN where vLLM has not drawn the token; None if not recorded."""
    if source.rollout_log_prob is None:
        return None
    return source.rollout_log_prob - next(iter(source.statistics.values())).log_prob


def _size(statistics: TokenStatistics) -> Tensor:
    return statistics.nucleus_size.double()
