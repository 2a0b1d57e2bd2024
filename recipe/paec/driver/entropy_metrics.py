"""The entropy of a step's responses by their outcome, from what its log-prob pass left in the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta

from paec_loss import Rollouts
from recipe.paec.actor.batches import padded_mask
from recipe.paec.driver import queue_io
from recipe.paec.driver.validation import at_the_limit
from recipe.paec.run.metric_names import ENTROPY
from recipe.paec.run.outcome_entropy import by_outcome

FIELDS = ["entropy", "response_mask"]
"""Fields of a response that are fetched where no method has had its statistics fetched."""


def add_entropy(
    metrics: dict[str, Any],
    batch: KVBatchMeta,
    infos: Sequence[Mapping[str, Any]],
    sources: Sequence[str],
    rollouts: Sequence[Rollouts],
    config: DictConfig,
) -> None:
    """Add `by_outcome` of `batch` to `metrics`, padding left out; nothing without a log-prob pass.

    Args:
        metrics: of the step, with ENTROPY if it has a log-prob pass.
        batch: what the pass has processed.
        infos, sources: what the reward function said about each response, and its data source.
        rollouts: the last entry is `batch` in its order, if a method has had it fetched; else empty.
        config: of the run.
    """
    if ENTROPY not in metrics:
        return
    if rollouts:
        entropy, inside = rollouts[-1].entropy, rollouts[-1].response_mask
    else:
        data = queue_io.get(batch, FIELDS)
        entropy = data["entropy"].to_padded_tensor(0.0)
        inside = padded_mask(data["response_mask"], entropy.shape[1])
    kept = [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
    entropy, inside = entropy[kept], inside[kept]
    right = torch.tensor([infos[row]["acc"] == 1 for row in kept])
    truncated = torch.tensor(at_the_limit(batch.tags, config.data.max_response_length))
    metrics.update(by_outcome(entropy, inside, right, truncated, [sources[row] for row in kept]))
