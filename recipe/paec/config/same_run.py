"""Which settings make a run the same run when it is started again, and which may change between two starts."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.paec.config.resolve import TRAINING, defining

CIRCUMSTANCES = ("run", "trainer", "cluster", "ray_kwargs", "identity", "transfer_queue", "global_profiler")
"""Configuration sections that do not make it another run (`resolve.SAME_RUN_PREFIXES`): length, monitoring, place."""
MONITORING = ("trace", "prometheus", "profiler")
"""The same for sections below the others."""
RESOURCES = (
    *("nnodes", "n_gpus_per_node", "num_workers", "*_num_workers", "*_workers", "nccl_timeout"),
    *("*_per_gpu", "*use_dynamic_bsz", "*offload*", "reshard_after_forward", "forward_prefetch"),
    *("enable_gradient_checkpointing", "fused_head", "head_chunk_size", "use_remove_padding", "use_torch_compile"),
    *("attn_implementation", "ulysses_sequence_parallel_size", "tensor_model_parallel_size", "enforce_eager"),
    *("gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens", "cudagraph_capture_sizes"),
    *("free_cache_engine", "enable_sleep_mode", "enable_chunked_prefill", "enable_prefix_caching"),
    *("update_weights_bucket_megabytes", "obtain"),
)
"""Patterns of the names of keys that decide about memory and speed, and of results about their rounding; a hint."""


def settings(config: DictConfig) -> dict[str, Any]:
    """Key -> value of everything that defines a run, without the module names of this recipe's classes."""
    found: dict[str, Any] = {}

    def add(node: Any, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                if key not in MONITORING:
                    add(value, f"{prefix}{key}.")
            elif any(fnmatchcase(str(key), pattern) for pattern in RESOURCES):
                continue
            elif not (isinstance(value, str) and value.removeprefix("pkg://").startswith("recipe.paec.")):
                found[prefix + str(key)] = value

    sections = OmegaConf.to_container(config)
    add({key: value for key, value in sections.items() if key not in CIRCUMSTANCES}, "")
    add(sections.get("trainer", {}).get("v1", {}), TRAINING)
    return found


def differences(recorded: DictConfig, wanted: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Key -> recorded and wanted value of each setting that makes it another run.

    A key that only one of them has counts, as None in the other, if their command lines differ; else another version of
    this recipe or of verl has added or removed it.
    """
    wanted = OmegaConf.create(OmegaConf.to_yaml(wanted))  # so that numbers are parsed as in the recorded file
    there, here = settings(recorded), settings(wanted)
    keys = there.keys() | here.keys() if _given(recorded) != _given(wanted) else there.keys() & here.keys()
    pairs = {key: (there.get(key), here.get(key)) for key in sorted(keys)}
    return {key: (old, new) for key, (old, new) in pairs.items() if old != new}


def _given(config: DictConfig) -> set[str]:
    """What the command line sets of a run's settings."""
    return set(defining(OmegaConf.select(config, "run.overrides") or []))
