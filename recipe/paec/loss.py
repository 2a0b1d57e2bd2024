"""The actor's loss: whatever surrogate verl has registered, plus the PAEC term of the micro-batch."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss

from paec_loss import Measurement, entropy_term, position_mask, regularized_entropy
from recipe.paec.statistics import padded_mask, response_statistics


def calibrated_policy_loss(
    config: ActorConfig, model_output: dict, data: TensorDict, dp_group=None
) -> tuple[torch.Tensor, dict]:
    """verl's `ppo_loss` (any `policy_loss.loss_mode`) minus coefficient * sum_t m_t E_t / Z over this micro-batch.

    `data["method_context"]` holds coefficient, Z and the mini-batch threshold, the same for all micro-batches and ranks
    (see `PAECEngine._measure`). FSDP averages gradients over the data-parallel ranks, hence the factor dp_size. The
    masks come from the current policy's statistics in `model_output` and carry no gradient.
    """
    loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    method = config.engine.method
    context = data["method_context"]
    statistics = response_statistics(model_output, data, context.vocab_size)
    response_mask = padded_mask(data["response_mask"], statistics.entropy.shape[1])
    mask = position_mask(statistics, response_mask, method, threshold=context.threshold)
    term = entropy_term(statistics, mask, coefficient=context.coefficient, normalizer=context.normalizer, config=method)
    local = Measurement.of(regularized_entropy(statistics.detach(), method), mask, response_mask)
    metrics["method_sums"] = [local.weighted_entropy, local.mass, local.tokens]
    return loss + term * data["dp_size"], metrics
