"""What in a run's configuration sets the log-probs of vLLM and of the actor apart, with the remedy for each."""

from __future__ import annotations

import math

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common.model_files import model_folder, read_config
from recipe.paec.config.identity import trainer_mode
from recipe.paec.run.warning_signs import CORRECT

ROLLOUT, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"
ACTOR_DTYPE = f"{ACTOR}.fsdp_config.mixed_precision.param_dtype"
"""The key that verl's FSDP engine reads; it does not read `fsdp_config.dtype`."""
CORRECTION = "algorithm.rollout_correction.rollout_is"
DTYPES = {"fp32": "float32", "float": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}
"""Other names of a dtype that verl and vLLM take."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Keys of a config.json that give the number of experts."""


def remedy(config: DictConfig) -> str:
    """What to do about log-probs that differ: the causes in a resolved configuration, or where to look if it has none.

    Not among them is `min_p`, which verl's rollout does not have.
    """
    ways = causes(config) or [
        f"the configuration has no known cause; float32 in {ROLLOUT}.dtype and {ACTOR_DTYPE} shows whether it is "
        "rounding, or whether the weights do not arrive"
    ]
    if OmegaConf.select(config, CORRECTION) is None:
        ways.append(CORRECT)
    return "; ".join(ways)


def causes(config: DictConfig) -> list[str]:
    """Every known cause that a resolved configuration has, as `key=value: why, and the remedy`."""
    rollout = config.actor_rollout_ref.rollout
    return [
        *_sampling(rollout),
        *_rounding(rollout, config.actor_rollout_ref.actor),
        *_policies(config),
    ]


def _sampling(rollout: DictConfig) -> list[str]:
    found = []
    mode, raw = rollout.logprobs_mode, not str(rollout.logprobs_mode).startswith("processed_")
    if mode not in ("processed_logprobs", "raw_logprobs"):
        found.append(f"{ROLLOUT}.logprobs_mode={mode} gives logits, not log-probs: set it to processed_logprobs")
    elif raw and rollout.temperature != 1:
        found.append(
            f"{ROLLOUT}.logprobs_mode=raw_logprobs leaves out temperature={rollout.temperature}, at which the actor's "
            "are computed: set it to processed_logprobs"
        )
    if rollout.top_p < 1 and not raw:
        found.append(
            f"{ROLLOUT}.top_p={rollout.top_p}: vLLM's log-probs are those within the nucleus, the actor's those of the "
            f"whole vocabulary, up to {-math.log(rollout.top_p):.3f} nats (-log top_p) lower: set it to 1"
        )
    if rollout.top_k > 0 and not raw:
        found.append(
            f"{ROLLOUT}.top_k={rollout.top_k}: vLLM's log-probs are those among the {rollout.top_k} likeliest tokens, "
            "the actor's those of the whole vocabulary, by -log of their mass lower: set it to -1"
        )
    return found


def _rounding(rollout: DictConfig, actor: DictConfig) -> list[str]:
    found = []
    if rollout.quantization is not None:
        found.append(f"{ROLLOUT}.quantization={rollout.quantization} rounds vLLM's weights: set it to null")
    cache = OmegaConf.select(rollout, "engine_kwargs.vllm.kv_cache_dtype")
    if cache not in (None, "auto"):
        found.append(
            f"{ROLLOUT}.engine_kwargs.vllm.kv_cache_dtype={cache} rounds vLLM's keys and values: set it to auto"
        )
    theirs = (actor.fsdp_config.mixed_precision or {}).get("param_dtype", "bf16")  # verl's default
    if DTYPES.get(rollout.dtype, rollout.dtype) != DTYPES.get(theirs, theirs):
        found.append(f"{ROLLOUT}.dtype={rollout.dtype} and {ACTOR_DTYPE}={theirs}: set both to one dtype")
    return found


def _policies(config: DictConfig) -> list[str]:
    found = []
    if (mode := trainer_mode(config)) != "sync":
        found.append(f"mode={mode} trains on responses of older policies: mode=sync does not")
    folder = model_folder(config.model.path)
    if folder is not None and (folder / "config.json").is_file():
        experts = next((count for key in EXPERTS if (count := read_config(folder).get(key))), 0)
        if experts > 1:
            found.append(
                f"{config.model.path} has {experts} experts, and vLLM may route a token to others than the actor does"
            )
    return found
