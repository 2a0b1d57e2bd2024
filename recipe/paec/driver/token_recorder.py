"""The token record of a step: a few prompts' responses from the queue; of the others nothing is fetched."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from paec_loss import Rollouts, TokenStatistics
from paec_loss.token_texts import token_pieces
from recipe.paec.actor.batches import QUEUED_FIELDS, RECORDED, padded_mask, queued_statistics
from recipe.paec.common.queue_keys import parts_of
from recipe.paec.run.token_record import STATISTICS, RecordedResponse, TokenRecord, write

OUTCOME = ["prompts", "responses", "response_mask", "advantages", "rm_scores", "rollout_log_probs", "loss_mask"]
"""Fields of a response that are fetched after the advantage estimator, those that the queue has.

`rollout_log_probs` are vLLM's, and `loss_mask` says where it has any: `response_mask` is by then also without the
tokens that a rollout correction has rejected.
"""
SECONDS = "timing_s/adv/record_tokens"
"""Metric: seconds that the trainer waited for a step's record. Another thread makes the rest of it, and the file."""

Part = tuple[list[str], TokenStatistics, TensorDict]
"""Responses of a record as they were fetched: keys, statistics, OUTCOME."""


def chosen_keys(batch: KVBatchMeta, prompts: int) -> list[str]:
    """The keys of all responses to the first `prompts` prompts of a batch by name, sorted; padding is left out."""
    groups: dict[str, list[tuple[int, int, str]]] = {}
    for key, tag in zip(batch.keys, batch.tags, strict=True):
        if not tag.get("is_padding", False):
            prompt, *place = parts_of(key)
            groups.setdefault(prompt, []).append((*place, key))
    return [key for prompt in sorted(groups)[:prompts] for _, _, key in sorted(groups[prompt])]


class TokenRecorder:
    """Collects the responses of a step's first `run.record_tokens` prompts, and writes them; 0: does nothing.

    A step has a log-prob pass, or several (separate_async). The statistics are taken right after it, because a
    reference policy in the actor leaves its own in their place; advantages and scores when they are known.
    """

    def __init__(self, config: DictConfig, top_p: float) -> None:
        self._prompts = config.run.record_tokens
        self._directory = Path(config.run.directory)
        self._about: dict[str, Any] = {
            "top_p": top_p,
            "temperature": config.actor_rollout_ref.rollout.temperature,
            "seed": config.seed,
        }
        self._tokenizer: Any = None
        self._start()

    def _start(self) -> None:
        self._parts: list[Part] = []
        self._taken: tuple[list[str], TokenStatistics] | None = None
        self._seconds = 0.0

    def ask(self, batch: KVBatchMeta) -> None:
        """Ask the log-prob pass of `batch` to leave all statistics in the queue."""
        batch.extra_info[RECORDED] = self._prompts > 0

    def take_statistics(self, batch: KVBatchMeta, vocab_size: int, rollouts: Rollouts | None = None) -> None:
        """After the log-prob pass: the statistics of the first prompts, unless the step has enough already.

        Args:
            batch: what the pass has processed.
            vocab_size: of the policy.
            rollouts: all responses of `batch` in its order, if a method has had them fetched; else they are fetched.
        """
        batch.extra_info.pop(RECORDED, None)
        wanted = self._prompts - len({parts_of(key)[0] for keys, _, _ in self._parts for key in keys})
        keys = chosen_keys(batch, wanted) if wanted > 0 else []
        if keys:
            started = time.monotonic()
            if rollouts is None:
                statistics = queued_statistics(_get(batch, keys, QUEUED_FIELDS), vocab_size)
            else:
                place = {key: row for row, key in enumerate(batch.keys)}
                rows = torch.tensor([place[key] for key in keys])
                statistics = rollouts.statistics.map(lambda values: values[rows])
            self._taken = keys, statistics
            self._about["vocab_size"] = vocab_size
            self._seconds += time.monotonic() - started

    def take_outcome(self, batch: KVBatchMeta, tokenizer: Any) -> None:
        """After the advantage estimator: fetch what is known of the same responses by now."""
        if self._taken is not None:
            started = time.monotonic()
            keys, statistics = self._taken
            self._parts.append((keys, statistics, _get(batch, keys, OUTCOME)))
            if self._tokenizer is None:
                self._tokenizer = copy.deepcopy(tokenizer)  # another thread uses it while the trainer uses its own
            self._taken = None
            self._seconds += time.monotonic() - started

    def write(self, executor: Executor, step: int, metrics: dict[str, Any]) -> list[Future]:
        """Start writing the step's record, and reset; returns the write that is under way, if there is one."""
        if not self._parts:
            return []
        metrics[SECONDS] = self._seconds
        parts, about = self._parts, {"step": step, **self._about}
        self._start()
        return [executor.submit(_write, self._directory, parts, about, self._tokenizer)]


def _write(directory: Path, parts: Sequence[Part], about: Mapping[str, Any], tokenizer: Any) -> Path:
    """Builds and writes the record; decoding the token texts takes longest."""
    responses = [response for part in parts for response in recorded(*part, tokenizer)]
    return write(directory, TokenRecord(responses=tuple(responses), **about))


def recorded(
    keys: list[str], statistics: TokenStatistics, outcome: TensorDict, tokenizer: Any
) -> list[RecordedResponse]:
    """The responses `keys` of the queue as they are recorded.

    Args:
        keys: of the responses.
        statistics: [B, R], padded.
        outcome: their OUTCOME; in a validation without advantages and vLLM's log-probs.
        tokenizer: the policy's.
    """
    columns = {name: getattr(statistics, name).float().numpy() for name in STATISTICS}
    size = statistics.nucleus_size.numpy()
    mask = padded_mask(outcome["response_mask"], size.shape[1]).numpy()
    scores = outcome["rm_scores"].to_padded_tensor(0.0).sum(-1).tolist()
    prompts, ids = ([row.numpy() for row in outcome[name].unbind()] for name in ("prompts", "responses"))
    estimated = "advantages" in outcome.keys()
    advantages = [row.numpy() for row in outcome["advantages"].unbind()] if estimated else [None] * len(keys)
    reported = _reported(outcome)
    texts = token_pieces([row.tolist() for row in ids], tokenizer)
    return [
        RecordedResponse(
            uid=key,
            input=tokenizer.decode(prompts[i], skip_special_tokens=True),
            score=scores[i],
            prompt_ids=prompts[i],
            ids=ids[i],
            texts=tuple(texts[i]),
            response_mask=mask[i, : len(ids[i])],
            advantages=advantages[i],
            nucleus_size=size[i, : len(ids[i])],
            statistics={name: values[i, : len(ids[i])] for name, values in columns.items()},
            rollout_log_prob=reported[i],
        )
        for i, key in enumerate(keys)
    ]


def _reported(outcome: TensorDict) -> list[Any]:
    """For each response vLLM's log-probs [T], NaN where a tool wrote the token; None where it reported none."""
    if "rollout_log_probs" not in outcome.keys():
        return [None] * len(outcome)
    rows = zip(outcome["rollout_log_probs"].unbind(), outcome["loss_mask"].unbind(), strict=True)
    return [values.float().masked_fill(mask == 0, torch.nan).numpy() for values, mask in rows]


def _get(batch: KVBatchMeta, keys: list[str], names: list[str]) -> TensorDict:
    return tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=names)
