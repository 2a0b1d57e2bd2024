"""Which positions of a response are decisions: the score, its threshold and the soft mask.

Scores, thresholds and masks carry no gradient. Scores are float64, so that ties at the threshold are real and not due
to rounding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from paec_loss import _torch as torch

if TYPE_CHECKING:
    from torch import Tensor

    from paec_loss.methods.paec import PAEC
    from paec_loss.statistics import TokenStatistics


def normalized_entropy(stats: TokenStatistics, config: PAEC) -> Tensor:
    """Nucleus entropy divided by its normalizer, Hhat [...], float64, detached; 0 for a nucleus of one token.

    [S] normalised; [D] by the log of the nucleus size, which puts Hhat in [0, 1] (`none`: nats; `log_vocab`).
    """
    return divide_by_normalizer(stats.nucleus_entropy.detach().double(), stats, config)


def divide_by_normalizer(nucleus_entropy: Tensor, stats: TokenStatistics, config: PAEC) -> Tensor:
    """`nucleus_entropy` [...] in nats divided by the configured normalizer; dtype and gradient are kept."""
    if config.normalizer == "none":
        return nucleus_entropy
    if config.normalizer == "log_vocab":
        return nucleus_entropy / math.log(max(stats.vocab_size, 2))
    # Size 0 is a row of broken logits: its NaN passes, it is not turned into a 0.
    normalized = nucleus_entropy / stats.nucleus_size.clamp_min(2).to(nucleus_entropy.dtype).log()
    return torch.where(stats.nucleus_size == 1, 0.0, normalized)


def competition(stats: TokenStatistics, config: PAEC) -> Tensor:
    """Competition C [...] of the two most likely tokens, in [0, 1], float64, detached.

    From the gap D = log p(1) - log p(2) in nats [S]; 1 when they tie, 0 when there is no second token. Form [D]:
    `ratio` exp(-D) = p(2) / p(1), `exp_tau` exp(-D / tau), `sigmoid` 2 sigmoid(-D), `inverse` 1 / (1 + D).
    """
    gap = stats.top1_log_prob.detach().double() - stats.top2_log_prob.detach().double()
    if config.competition == "ratio":
        return torch.exp(-gap)
    if config.competition == "exp_tau":
        return torch.exp(-gap / config.competition_tau)
    if config.competition == "sigmoid":
        return 2 * torch.sigmoid(-gap)
    return 1 / (1 + gap)


def position_score(stats: TokenStatistics, config: PAEC) -> Tensor:
    """Score s = (1 - beta) * Hhat + beta * C, [...], float64, detached ([S] beta, [D] the form)."""
    return (1 - config.beta) * normalized_entropy(stats, config) + config.beta * competition(stats, config)


def position_threshold(score: Tensor, response_mask: Tensor, config: PAEC) -> Tensor:
    """Threshold kappa: the rho-quantile of the score over response tokens [S], by linear interpolation.

    Args:
        score: [B, L], or [L] for one response.
        response_mask: the shape of score; nonzero marks a response token.
        config: rho and quantile_scope ([D] `response`: one kappa per row; `mini_batch`: one over all tokens given).

    Returns:
        [B, 1] or [1, 1] ([1] for one response), float64, to be broadcast against the score. +inf where there is no
        response token, so that nothing is selected; NaN where a response token's score is NaN.

    Raises:
        ValueError: shapes that differ or have another rank.
    """
    _check_shapes(score, response_mask)
    if config.quantile_scope == "mini_batch":
        shape = (1,) * (score.dim() - 1) + (-1,)
        score, response_mask = score.reshape(shape), response_mask.reshape(shape)
    return masked_quantile(score, response_mask, config.rho)


def masked_quantile(values: Tensor, mask: Tensor, q: float) -> Tensor:
    """q-quantile along the last dimension over the entries where mask is nonzero: torch.quantile's definition.

    values and mask [..., L] give [..., 1] in float64: rank q (n - 1), interpolated linearly. +inf where n = 0, NaN
    where one of these entries is NaN.
    """
    chosen = mask != 0
    values = torch.where(chosen, values.detach().double(), math.inf)
    count = chosen.sum(dim=-1, keepdim=True)
    rank = (q * (count - 1).double()).clamp_min(0)
    # One additional +inf gives a row of length 0 something to read.
    ordered = torch.nn.functional.pad(values.sort(dim=-1).values, (0, 1), value=math.inf)
    below, above = ordered.gather(-1, rank.floor().long()), ordered.gather(-1, rank.ceil().long())
    quantile = torch.where(count == 0, math.inf, torch.lerp(below, above, rank - rank.floor()))
    return torch.where(values.isnan().any(dim=-1, keepdim=True), math.nan, quantile)


def mask_from_score(score: Tensor, response_mask: Tensor, config: PAEC, threshold: Tensor | float) -> Tensor:
    """Soft mask m [B, L] (or [L]) in [0, 1], float64, detached ([P] soft, gradient stopped; [D] the form).

    `ramp` clip((s - kappa) / mask_width, 0, 1), `gated` s and `hard` 1 are exactly 0 where s <= kappa or s = 0;
    `sigmoid` sigmoid((s - kappa) / mask_width) is not sparse; `none` is 1. (`gated` exceeds 1 only with
    normalizer=none.) All are exactly 0 outside the response, whatever the score is there. A response token whose score
    or threshold is NaN has mask NaN, except with `none`: broken logits stay visible.

    Args:
        score: [B, L] or [L].
        response_mask: the shape of score; nonzero marks a response token.
        config: mask and mask_width.
        threshold: broadcastable to score; unused by `none`.

    Raises:
        ValueError: shapes that differ or have another rank.
    """
    _check_shapes(score, response_mask)
    response = response_mask != 0
    if config.mask == "none":
        return response.double()
    score = score.detach().double()
    margin = score - threshold
    if config.mask == "sigmoid":
        return torch.where(response, torch.sigmoid(margin / config.mask_width), 0.0)
    if config.mask == "ramp":
        weight = (margin / config.mask_width).clamp(0, 1)
    elif config.mask == "gated":
        weight = score
    else:
        weight = torch.ones_like(score)
    selected = response & (score > threshold) & (score != 0)
    return torch.where(response & margin.isnan(), math.nan, torch.where(selected, weight, 0.0))


def position_mask(
    stats: TokenStatistics, response_mask: Tensor, config: PAEC, *, threshold: Tensor | float | None = None
) -> Tensor:
    """Soft mask m of the positions given, [B, L] (or [L]), in the dtype of stats.entropy; never requires grad.

    The composition of position_score, position_threshold and mask_from_score. With quantile_scope=mini_batch and fewer
    tokens than the mini-batch, pass the threshold of the full mini-batch; without one it is computed over these tokens.
    """
    return mask_and_threshold(stats, response_mask, config, threshold)[0].to(stats.entropy.dtype)


def mask_and_threshold(
    stats: TokenStatistics, response_mask: Tensor, config: PAEC, threshold: Tensor | float | None = None
) -> tuple[Tensor, Tensor | float]:
    """`position_mask` in float64, and the threshold that it was taken at: the given one, or that of these tokens."""
    score = position_score(stats, config)
    if threshold is None:
        threshold = position_threshold(score, response_mask, config)
    return mask_from_score(score, response_mask, config, threshold), threshold


def _check_shapes(score: Tensor, response_mask: Tensor) -> None:
    if score.dim() not in (1, 2) or score.shape != response_mask.shape:
        raise ValueError(
            f"score {list(score.shape)} and response_mask {list(response_mask.shape)}: must both be [B, L], or both [L]"
        )
