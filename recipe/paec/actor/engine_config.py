"""verl's FSDP engine configuration with more typed fields: the methods, and how the LM head is computed."""

from __future__ import annotations

from dataclasses import dataclass, field

from verl.workers.config import FSDPEngineConfig

from paec_loss import Clip, Method, MethodStack


@dataclass
class MethodEngineConfig(FSDPEngineConfig):
    """`actor_rollout_ref.actor.fsdp_config`; an unknown key is refused when it is instantiated."""

    methods: list[Method] = field(kw_only=True)
    """The run's method, and the additional ones (`also=`)."""

    clip: Clip = field(kw_only=True)
    """Clip range of the surrogate; the actor's own if a method's range follows a schedule (`MethodStack.run_clip`)."""

    fused_head: bool = field(kw_only=True)
    """Compute the logits a few rows at a time inside the LM head: less memory, one more product with its weight."""

    head_chunk_size: int | None = field(kw_only=True)
    """Rows whose logits exist at once with `fused_head`; null: paec_loss.linear.CHUNK_SIZE."""

    def __post_init__(self):
        super().__post_init__()
        if self.head_chunk_size is not None and self.head_chunk_size < 1:
            raise ValueError(f"head_chunk_size={self.head_chunk_size}: must be an integer >= 1")

    @property
    def stack(self) -> MethodStack:
        """All methods combined."""
        return MethodStack(self.methods)
