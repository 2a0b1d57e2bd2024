"""What the methods' hooks on the driver see of a step, from what its rollout and log-prob pass left in the queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from paec_loss import MethodStack, Rollouts
from paec_loss.stack import NO_SIGNALS, Signals
from paec_loss.token_texts import token_pieces
from recipe.grading.pool import GraderPool
from recipe.paec.actor.batches import QUEUED_FIELDS, RESPONSE_NUMBER, RESPONSE_VALUE, padded_mask, queued_statistics
from recipe.paec.actor.responses import response_to_nested
from recipe.paec.common.queue_keys import parts_of, prompt_of, response_number
from recipe.paec.rollout.agent_loop import ROLLOUT_TEMPERATURE

ACTOR_FIELDS = sorted(
    {
        *("input_ids", "position_ids", "prompts", "responses", "response_mask", "loss_mask", "multi_modal_inputs"),
        *("routed_experts", "teacher_ids", "teacher_logprobs", "rollout_log_probs", "rollout_is_weights"),
        *("old_log_probs", "ref_log_prob", "advantages"),
        *(RESPONSE_NUMBER, RESPONSE_VALUE, *QUEUED_FIELDS),
    }
)
"""What actor workers may read of a response. The rest are Python objects, which cost them more than their tensors."""


def for_the_actor(batch: KVBatchMeta) -> KVBatchMeta:
    """`batch`, of which an actor worker fetches no other fields than `ACTOR_FIELDS`."""
    batch.fields = [*ACTOR_FIELDS]
    return batch


def sample_in_order(sample, *args, **kwargs):
    """What the replay buffer's `sample` returns, ordered by prompt and sample number instead of by finishing time."""
    batch, metrics = sample(*args, **kwargs)
    places = [parts_of(key) for key in batch.keys]
    batch.reorder(sorted(range(len(batch)), key=places.__getitem__))
    return batch, metrics


def number_responses(batch: KVBatchMeta) -> None:
    """Set the number of every response of `batch` in the queue, computed from its key."""
    _put(batch, {RESPONSE_NUMBER: torch.tensor([response_number(key) for key in batch.keys])})


def read_rollouts(
    batch: KVBatchMeta,
    stack: MethodStack,
    tokenizer: Any,
    vocab_size: int,
    step: int,
    config: DictConfig,
) -> Rollouts:
    """The responses of `batch` after their log-prob pass; padded [B, R], in the order of its keys.

    They have their graded rewards if a method has `needs = {"rewards"}`.

    Of `config` it reads the seed, the length at which responses are cut off, and `reward.scorers`, which decides what
    equal answers are.
    """
    wanted = [*QUEUED_FIELDS]
    wanted += ["extra_fields", "data_source"] if "answer_ids" in stack.needs else []
    wanted += [ROLLOUT_TEMPERATURE] if stack.has("sampling") else []
    data = get(batch, wanted)
    statistics = queued_statistics(data, vocab_size)
    inside = padded_mask(data["response_mask"], statistics.entropy.shape[1])
    tokens = data["responses"].to_padded_tensor(0)
    prompts = [prompt_of(key) for key in batch.keys]
    # Not the mask's sum: the mask leaves out what tools wrote within a response.
    lengths = data["responses"].offsets().diff().tolist()
    ids = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
    return Rollouts(
        statistics=statistics,
        response_mask=inside,
        group_id=torch.tensor([response_number(prompt) for prompt in prompts]),
        step=step,
        seed=config.seed,
        tokens=tokens,
        rewards=read_rewards(batch)[0] if "rewards" in stack.needs else None,
        text=[tokenizer.decode(row) for row in ids] if "text" in stack.needs else None,
        token_texts=token_pieces(ids, tokenizer) if "token_texts" in stack.needs else None,
        answer_ids=_answer_ids(data, batch.keys, config.reward.scorers) if "answer_ids" in stack.needs else None,
        resampled=torch.tensor(list(data[ROLLOUT_TEMPERATURE])) > 0 if stack.has("sampling") else None,
        place=torch.tensor([parts_of(key)[1] for key in batch.keys]),
        max_response_length=config.data.max_response_length,
    )


def _answer_ids(data: TensorDict, keys: list[str], scorers: Mapping[str, str]) -> torch.Tensor:
    """[B] class of each response's answer among those of its prompt; a response without an answer has its own class.

    The classes of a prompt do not depend on where its responses are in the batch.
    """
    answers = [extra["reward_extra_info"]["pred"] or None for extra in data["extra_fields"]]
    sources = list(data["data_source"])
    rows: dict[str, list[int]] = {}
    for row in sorted(range(len(keys)), key=lambda row: parts_of(keys[row])):
        rows.setdefault(prompt_of(keys[row]), []).append(row)
    return torch.tensor(_graders(tuple(scorers.items())).answer_ids(rows.values(), sources, answers))


@cache
def _graders(scorers: tuple[tuple[str, str], ...]) -> GraderPool:
    """The graders of this process; they end with it."""
    return GraderPool(scorers=dict(scorers))


def read_rewards(batch: KVBatchMeta) -> tuple[torch.Tensor, torch.Tensor]:
    """Graded rewards [B], and the nested [B, j] per-token scores that they come from."""
    scores = get(batch, ["rm_scores"])["rm_scores"]
    return scores.to_padded_tensor(0.0).sum(-1), scores


def put_scores(batch: KVBatchMeta, scores: torch.Tensor) -> None:
    """Put nested [B, j] per-token scores into the queue, where the advantage estimator takes them from."""
    _put(batch, {"rm_scores": scores})


def put_rewards(batch: KVBatchMeta, rewards: torch.Tensor, scores: torch.Tensor) -> None:
    """The same from rewards [B]: all of a response's reward at its last token, as in `scores`."""
    padded = torch.zeros_like(scores.to_padded_tensor(0.0))
    lengths = scores.offsets().diff()
    padded[torch.arange(len(lengths)), (lengths - 1).clamp_min(0)] = rewards.to(padded.dtype)
    put_scores(batch, response_to_nested(padded, scores))


def read_advantages(batch: KVBatchMeta, length: int) -> torch.Tensor:
    """[B, length] advantages of the estimator."""
    advantages = get(batch, ["advantages"])["advantages"].to_padded_tensor(0.0)
    return torch.nn.functional.pad(advantages, (0, length - advantages.shape[1]))


def put_advantages(batch: KVBatchMeta, advantages: torch.Tensor) -> None:
    """Put [B, R] advantages into the queue."""
    like = get(batch, ["response_mask"])["response_mask"]
    _put(batch, {"advantages": response_to_nested(advantages.float(), like)})


def put_outcome(
    batch: KVBatchMeta,
    stack: MethodStack,
    rollouts: Rollouts,
    graded: torch.Tensor,
    signals: Signals = NO_SIGNALS,
) -> None:
    """Put the methods' advantages and numbers of the responses into the queue.

    Args:
        batch: the responses in the queue.
        stack: the methods.
        rollouts: the same responses with the rewards that the estimator has used.
        graded: [B] graded rewards.
        signals: the signal of each method's tracker for this step, by name.
    """
    if not (stack.has("advantages") or stack.has("response_value")):
        return
    rollouts = replace(rollouts, advantages=read_advantages(batch, rollouts.response_mask.shape[1]))
    if stack.has("advantages"):
        rollouts = replace(rollouts, advantages=stack.advantages(rollouts, signals))
        put_advantages(batch, rollouts.advantages)
    values = stack.response_value(replace(rollouts, rewards=graded), signals)
    if values is not None:
        _put(batch, {RESPONSE_VALUE: values})


def get(batch: KVBatchMeta, names: list[str]) -> TensorDict:
    """The fields `names` of the responses of `batch`, in its order."""
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=names)


def _put(batch: KVBatchMeta, columns: dict[str, torch.Tensor]) -> None:
    fields = TensorDict(columns, batch_size=len(batch.keys))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
