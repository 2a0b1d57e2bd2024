"""verl's FSDP engine configuration with one more typed field: the method."""

from __future__ import annotations

from dataclasses import dataclass, field

from verl.workers.config import FSDPEngineConfig

from paec_loss import NoMethodConfig, PAECConfig


@dataclass
class MethodEngineConfig(FSDPEngineConfig):
    """`actor_rollout_ref.actor.fsdp_config`; an unknown key is refused when it is instantiated."""

    method: PAECConfig | NoMethodConfig = field(default_factory=NoMethodConfig)
