"""From FSDP shards to full tensors, with adapters merged; nothing pickled is executed."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError

DTYPES = ("float32", "bfloat16", "float16")
ADAPTER_FILE = "lora_train_meta.json"
"""verl's record of an adapter, next to the shards: `r` and `lora_alpha`."""
ADAPTED = "base_model.model."
"""The prefix that peft adds to the name of every parameter."""


def read_shards(actor: Path) -> list[dict[str, Any]]:
    """The state dict of every rank, memory-mapped; UserError naming the file that is missing, truncated or unsafe."""
    import torch
    import torch.distributed.tensor  # noqa: F401  (lets torch.load read DTensors)

    try:
        ranks = int(json.loads((actor / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{actor / 'fsdp_config.json'}: {error}: the checkpoint is damaged, choose another one"
        ) from None
    # "Pickled before the process groups were created", for every shard: nothing is communicated here.
    logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)
    shards = []
    for rank in range(ranks):
        file = actor / f"model_world_size_{ranks}_rank_{rank}.pt"
        say(f"reading {file.name}")
        try:
            shards.append(torch.load(file, map_location="cpu", mmap=True, weights_only=True))
        except FileNotFoundError:
            raise UserError(f"{file} is missing: the checkpoint is incomplete, choose another one") from None
        except pickle.UnpicklingError:
            raise UserError(
                f"{file}: contains something other than tensors, which loading would execute: it was not written by a "
                "training run of this recipe, or was tampered with; choose another checkpoint"
            ) from None
        except (RuntimeError, EOFError, ValueError) as error:
            raise UserError(f"{file} is damaged ({str(error).splitlines()[0]}): choose another checkpoint") from None
    return shards


def _assemble(parts, placements: Sequence[Any]):
    """A parameter from its local tensors, an object array in the shape of the device mesh."""
    import torch

    if not placements:
        return parts
    inner = [_assemble(part, placements[1:]) for part in parts]
    return torch.cat(inner, placements[0].dim) if placements[0].is_shard() else inner[0]


def merged(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """The full parameters of the state dicts of all ranks, as they were saved; UserError if they do not fit together.

    Args:
        shards: by rank. DTensors are joined by their placements, on device meshes of any number of dimensions;
            plain tensors are the same on every rank.
    """
    import numpy
    from torch.distributed.tensor import DTensor, Replicate, Shard

    whole = {}
    for name, first in shards[0].items():
        if not isinstance(first, DTensor):
            whole[name] = first
            continue
        if any(type(placement) not in (Shard, Replicate) for placement in first.placements):
            raise UserError(f"{name}: is sharded as {first.placements}, which this export does not support")
        mesh = first.device_mesh.mesh
        local = numpy.empty(tuple(mesh.shape), dtype=object)
        for place in numpy.ndindex(local.shape):
            # to_local() needs the process group that the tensor was created in.
            local[place] = shards[int(mesh[place])][name]._local_tensor
        whole[name] = _assemble(local, first.placements)
        if whole[name].shape != first.shape:
            raise UserError(
                f"{name}: {tuple(whole[name].shape)} in the shards, {tuple(first.shape)} in the model: the files are "
                "from different checkpoints"
            )
    return whole


def with_adapter(model, state: dict[str, Any], actor: Path):
    """`model` wrapped by peft so that `state` fits it: the modules that have a `lora_A` are adapted."""
    from peft import LoraConfig, get_peft_model

    try:
        meta = json.loads((actor / ADAPTER_FILE).read_text(encoding="utf-8"))
        rank, alpha = int(meta["r"]), meta["lora_alpha"]
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise UserError(
            f"{actor / ADAPTER_FILE}: {error}: without it the adapter's scale is not known; choose another checkpoint"
        ) from None
    if not any(name.startswith(ADAPTED) and "lora_" not in name for name in state):
        raise UserError(
            f"{actor} contains only the adapter, without its base model: save both "
            "(actor_rollout_ref.actor.checkpoint.save_lora_only=false), or load it onto its base model with peft"
        )
    modules = {name.removeprefix(ADAPTED).split(".lora_A.")[0] for name in state if ".lora_A." in name}
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(modules)))
