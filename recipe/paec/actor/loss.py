"""The actor's loss: verl's own, with the hooks of the methods around it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import agg_loss, register_policy_loss
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss

from paec_loss import MethodStack, Tokens, Update
from recipe.paec.actor.batches import micro_batch_tokens
from recipe.paec.actor.responses import response_to_nested
from recipe.paec.config.schema import OWN_SURROGATE

_surrogate: ContextVar[Callable] = ContextVar("surrogate")


@dataclass(frozen=True)
class MiniBatch:
    """What the loss of a micro-batch needs to know about its mini-batch; the same on every rank."""

    stack: MethodStack
    contexts: list[Any]
    """What each method prepared."""
    updates: list[Update]
    """The update, as each method sees it."""
    vocab_size: int


def method_loss(config: ActorConfig, model_output: dict, data: TensorDict, dp_group=None) -> tuple[torch.Tensor, dict]:
    """verl's `ppo_loss` with the methods' advantages and surrogate, plus their terms of this micro-batch.

    `data["mini_batch"]` is the same for all micro-batches and ranks (see `PAECEngine._prepare`). FSDP averages
    gradients over the data-parallel ranks, hence the factor dp_size. If a method has its own surrogate, verl's
    `policy_loss.loss_mode` is OWN_SURROGATE.
    """
    mini_batch = data["mini_batch"]
    stack, contexts, updates = mini_batch.stack, mini_batch.contexts, mini_batch.updates
    tokens = micro_batch_tokens(model_output, data, mini_batch.vocab_size)
    term = stack.loss_term(tokens, contexts, updates)
    sums = stack.local_sums(tokens, contexts, updates)
    if stack.has("token_advantages"):
        tokens = replace(tokens, advantages=stack.token_advantages(tokens, contexts, updates))
        data = data.copy()
        data["advantages"] = response_to_nested(tokens.advantages.to(tokens.log_prob.dtype), data["response_mask"])
    previous = _surrogate.set(partial(_own_surrogate, mini_batch, tokens))
    try:
        loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    finally:
        _surrogate.reset(previous)
    metrics["method_sums"] = [sums]
    return loss + term * data["dp_size"], metrics


@register_policy_loss(OWN_SURROGATE)
def _from_the_methods(**arguments) -> tuple[torch.Tensor, dict[str, Any]]:
    """verl's registry only passes log-probs and advantages; whatever else a method reads is bound in `method_loss`."""
    return _surrogate.get()(**arguments)


def _own_surrogate(
    mini_batch: MiniBatch,
    tokens: Tokens,
    *,
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str,
    config: ActorConfig,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The methods' policy loss over their selection of tokens, aggregated as verl aggregates its own."""
    stack, contexts, updates = mini_batch.stack, mini_batch.contexts, mini_batch.updates
    losses = stack.policy_loss(tokens, contexts, updates)
    if rollout_is_weights is not None:
        losses = losses * rollout_is_weights
    whole = config.global_batch_info
    mask = tokens.response_mask
    if stack.has("selection"):
        mask, count = stack.selection(tokens, contexts, updates)
        whole = {**whole, "batch_num_tokens": max(count, 1)}
    loss = agg_loss(loss_mat=torch.where(mask, losses, 0.0), loss_mask=mask, loss_agg_mode=loss_agg_mode, **whole)
    inside = tokens.response_mask
    kl = torch.where(inside, -tokens.log_ratio.detach(), 0.0).sum() / inside.sum().clamp_min(1)
    return loss, {"actor/ppo_kl": kl.item()}
