"""What a step's log-prob passes say about the positions of its tokens, joined over the passes of the step."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from paec_loss import (
    Measurement,
    PAECConfig,
    TokenStatistics,
    mask_from_score,
    position_score,
    position_summary,
    position_threshold,
    regularized_entropy,
)


@dataclass(frozen=True)
class Positions:
    """Tensors [B, R] over B responses, padded on the right; `response_mask` says which places are tokens."""

    statistics: TokenStatistics
    score: torch.Tensor
    """Position score s."""
    entropy: torch.Tensor
    """The entropy E that the loss acts on."""
    mask: torch.Tensor
    """Position mask m in [0, 1]; 0 outside the responses."""
    response_mask: torch.Tensor

    @classmethod
    def of(cls, statistics: TokenStatistics, response_mask: torch.Tensor, config: PAECConfig) -> Positions:
        """Score, entropy and mask of one log-prob pass; with quantile_scope=mini_batch kappa is of this pass."""
        score = position_score(statistics, config)
        kappa = position_threshold(score, response_mask, config)
        mask = mask_from_score(score, response_mask, config, kappa)
        return cls(statistics, score, regularized_entropy(statistics, config), mask, response_mask)

    @classmethod
    def joined(cls, parts: list[Positions]) -> Positions:
        """All responses of `parts` (at least one) together, padded to the longest."""
        if len(parts) == 1:
            return parts[0]
        length = max(part.response_mask.shape[1] for part in parts)

        def join(owners: list, name: str) -> torch.Tensor:
            tensors = [getattr(owner, name) for owner in owners]
            return torch.cat([torch.nn.functional.pad(x, (0, length - x.shape[1])) for x in tensors])

        passes = [part.statistics for part in parts]
        tensors = {f.name: join(passes, f.name) for f in fields(TokenStatistics) if f.name != "vocab_size"}
        statistics = TokenStatistics(**tensors, vocab_size=passes[0].vocab_size)
        return cls(statistics, *(join(parts, f.name) for f in fields(cls) if f.name != "statistics"))

    def measurement(self) -> Measurement:
        """The sums that give Hbar."""
        return Measurement.of(self.entropy, self.mask, self.response_mask)

    def summary(self, config: PAECConfig) -> dict[str, float]:
        """`position_summary` of the tokens."""
        return position_summary(self.statistics, self.mask, self.response_mask, config)
