"""Metrics of a batch of tokens: what the mask selects and how the entropy is distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paec_loss import _torch as torch
from paec_loss.position import competition, masked_quantile, normalized_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from paec_loss.methods.paec import PAEC
    from paec_loss.statistics import TokenStatistics


def position_summary(stats: TokenStatistics, mask: Tensor, response_mask: Tensor, config: PAEC) -> dict[str, float]:
    """Token metrics of the mask over the response tokens given; a mean or share of an empty set is 0, never NaN.

    Args:
        stats: fields [B, L], or [L] for one response.
        mask: the same shape, from position_mask.
        response_mask: the same shape; nonzero marks a response token.
        config: for the competition and the normalised entropy.

    Returns:
        mask_mass (sum m / tokens), selected_fraction (m > 0), competition and normalized_entropy (means),
        single_token_nucleus_fraction of all and single_token_nucleus_fraction_selected of the selected tokens, entropy
        and nucleus_entropy (means, nats), nucleus_size_mean and nucleus_size_p90 (tokens), entropy_selected and
        entropy_unselected (means, nats), and mask_mass_decile_0 to mask_mass_decile_9: the share of the mask's mass in
        each tenth of the response. Token i of n covers [i / n, (i + 1) / n] of its response, and its mass is divided
        among the tenths that it covers: equal weights give every tenth 0.1, at every length.

    Raises:
        ValueError: shapes that differ.
    """
    if not stats.entropy.shape == mask.shape == response_mask.shape:
        raise ValueError(
            f"stats {list(stats.entropy.shape)}, mask {list(mask.shape)} and response_mask "
            f"{list(response_mask.shape)}: must have the same shape"
        )
    response = response_mask != 0
    weight = torch.where(response, mask.detach().double(), 0.0)
    selected = weight > 0
    entropy = stats.entropy.detach()
    single = stats.nucleus_size == 1
    summary = {
        "mask_mass": _mean(weight, response),
        "selected_fraction": _mean(selected, response),
        "competition": _mean(competition(stats, config), response),
        "normalized_entropy": _mean(normalized_entropy(stats, config), response),
        "single_token_nucleus_fraction": _mean(single, response),
        "single_token_nucleus_fraction_selected": _mean(single, selected),
        "entropy": _mean(entropy, response),
        "nucleus_entropy": _mean(stats.nucleus_entropy.detach(), response),
        "nucleus_size_mean": _mean(stats.nucleus_size, response),
        "nucleus_size_p90": _percentile_90(stats.nucleus_size, response),
        "entropy_selected": _mean(entropy, selected),
        "entropy_unselected": _mean(entropy, response & ~selected),
    }
    deciles = _mass_by_decile(weight, response)
    return summary | {f"mask_mass_decile_{i}": share for i, share in enumerate(deciles)}


def _mean(values: Tensor, where: Tensor) -> float:
    count = int(where.sum())
    return torch.where(where, values.double(), 0.0).sum().item() / count if count else 0.0


def _percentile_90(values: Tensor, where: Tensor) -> float:
    return masked_quantile(values.reshape(-1), where.reshape(-1), 0.9).item() if where.any() else 0.0


def _mass_by_decile(weight: Tensor, response: Tensor) -> list[float]:
    length = response.sum(dim=-1, keepdim=True).clamp_min(1)
    index = (response.cumsum(dim=-1) - 1).clamp_min(0)
    # In integers, in units of 1 / (10 length): a token covers 10 of them, a tenth `length`.
    covered = [
        (torch.minimum(10 * index + 10, (i + 1) * length) - torch.maximum(10 * index, i * length)).clamp_min(0)
        for i in range(10)
    ]
    mass = torch.stack([(weight * part).sum() for part in covered]).tolist()
    total = sum(mass)
    return [share / total for share in mass] if total > 0 else [0.0] * 10
