"""The LM head that gives token statistics instead of logits: `fused_head=true`, a memory option."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from paec_loss import linear_token_statistics
from recipe.paec.actor.batches import pack


@dataclass(frozen=True)
class HeadLabels:
    """What the head needs about a micro-batch in addition to the hidden states [..., d]: labels [...] and so on."""

    labels: torch.Tensor
    temperature: float | torch.Tensor
    top_p: float


class StatisticsHead(nn.Linear):
    """A model's own output layer. With `targets` it returns packed token statistics [..., 7], otherwise logits.

    The model calls it like any head, so FSDP gathers its weight, tied or not, and every architecture
    works whose logits are this layer's output.
    """

    targets: HeadLabels | None
    chunk_size: int

    @classmethod
    def install(cls, model: PreTrainedModel, chunk_size: int) -> StatisticsHead:
        """Turn the output layer of `model` into one of these, in place; its weight and its name stay the same."""
        head = model.get_output_embeddings()
        if type(head) is not nn.Linear:
            raise ValueError(
                f"fused_head: the output layer of {type(model).__name__} is a {type(head).__name__}, not a plain "
                "Linear: set actor_rollout_ref.actor.fsdp_config.fused_head=false"
            )
        config = model.config.get_text_config()
        for name, neutral in AFTER_THE_HEAD.items():
            if getattr(config, name, neutral) not in (neutral, None):
                raise ValueError(
                    f"fused_head: {type(model).__name__} changes the logits after its output layer ({name}): "
                    "set actor_rollout_ref.actor.fsdp_config.fused_head=false"
                )
        head.__class__ = cls
        head.targets = None
        head.chunk_size = chunk_size
        return head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.targets is None:
            return super().forward(hidden)
        statistics = linear_token_statistics(
            hidden,
            self.weight,
            self.targets.labels,
            top_p=self.targets.top_p,
            temperature=self.targets.temperature,
            bias=self.bias,
            chunk_size=self.chunk_size,
        )
        return pack(statistics)


AFTER_THE_HEAD = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0, "lm_head_multiplier": 1.0}
"""Keys of a model's configuration that change its logits after the head, with the value that has no effect."""
