"""`python -m recipe.paec.export CHECKPOINT TARGET`: a checkpoint (`.../global_step_N`) as a Hugging Face folder.

Safetensors, tokenizer, generation configuration with the sampling of training, and a model card with the provenance.
The shards of any number of ranks are put together bit by bit; an adapter (LoRA) is merged. Nothing pickled is executed,
no GPU is needed, and verl is not: its own merger rounds everything to bfloat16, leaves adapters beside the model and
runs whatever a shard tells it to. Memory: the model once, in the precision it was saved in.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.cleaning import contents, remove
from data_prep.files import building_directory, sha256
from data_prep.progress import quiet_transformers
from recipe.paec import checkpoints, folders
from recipe.paec.command_line import NOT_OURS, complain, say
from recipe.paec.errors import UserError
from recipe.paec.model_files import is_hub_id
from recipe.paec.run_log import METRICS_FILE, read_metrics
from recipe.paec.supervise import die_with_parent

EXPORT_FILE = folders.EXPORT_RECORD
"""In an exported folder: the run and the step that it holds, and the names of its files."""
CARD = "README.md"
DTYPES = ("float32", "bfloat16", "float16")
ADAPTER_FILE = "lora_train_meta.json"
"""verl's record of an adapter, beside the shards: `r` and `lora_alpha`."""
ADAPTED = "base_model.model."
"""What peft puts before the name of every parameter."""
TOKENIZER_SUFFIXES = (".json", ".jinja", ".txt", ".model")
"""Files that verl leaves beside the shards and that are taken over; code is not among them."""


# ---- where a checkpoint belongs --------------------------------------------------------------------------------------


def run_of(checkpoint: Path) -> Path | None:
    """Directory of the run that a checkpoint lies in, None for one that was moved elsewhere."""
    run = checkpoint.absolute().parents[1]
    return run if (run / "config.yaml").is_file() else None


def _origin(checkpoint: Path, step: int) -> dict[str, Any]:
    run = run_of(checkpoint)
    return {"run": run.name if run else None, "step": step}


def holds(folder: Path, checkpoint: Path, step: int) -> bool:
    """Whether `folder` is the export of this checkpoint, whose step is `step`."""
    found, origin = _record(folder), _origin(checkpoint, step)
    return found is not None and {key: found[key] for key in origin} == origin


def _record(folder: Path) -> dict[str, Any] | None:
    """What EXPORT_FILE says; None for a folder that is no export."""
    try:
        found = json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"run", "step"} <= found.keys() else None


def target_problem(target: Path, replace: bool) -> str | None:
    """Why nothing can be exported to `target`, None if it can; touches nothing.

    Replaced is only what this command has written: a folder with other files stays as it is.
    """
    if target.is_symlink():
        return f"{target} is a symbolic link: name the folder itself, or a new one"
    if target.exists() and not target.is_dir():
        return f"{target} is a file: name a new folder"
    if not target.exists() or not any(target.iterdir()):
        return None
    if not replace:
        return f"{target} exists and is not empty: name a new folder, or delete it"
    if _record(target) is None:
        return f"{target} was not written by this command: name a new folder, or delete it"
    found = contents(target, folders.exported_files(target))
    if strangers := found.links + found.foreign:
        return (
            f"{target / strangers[0]} is not part of the export that {target} holds: move it away, or name a new folder"
        )
    return None


# ---- weights ---------------------------------------------------------------------------------------------------------


def _read_shards(actor: Path) -> list[dict[str, Any]]:
    """The state dict of every rank, memory-mapped; UserError naming the file that is missing, cut off or not safe."""
    import torch
    import torch.distributed.tensor  # noqa: F401  (lets torch.load read DTensors)

    try:
        ranks = int(json.loads((actor / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{actor / 'fsdp_config.json'}: {error}: the checkpoint is damaged, take another") from None
    # "Pickled before the process groups were created", for every shard: nothing is communicated here.
    logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)
    shards = []
    for rank in range(ranks):
        file = actor / f"model_world_size_{ranks}_rank_{rank}.pt"
        say(f"reading {file.name}")
        try:
            shards.append(torch.load(file, map_location="cpu", mmap=True, weights_only=True))
        except FileNotFoundError:
            raise UserError(f"{file} is missing: the checkpoint is incomplete, take another") from None
        except pickle.UnpicklingError:
            raise UserError(
                f"{file}: holds something else than tensors, which reading would execute: it was not written by a "
                "training run of this recipe, or was tampered with; take another checkpoint"
            ) from None
        except (RuntimeError, EOFError, ValueError) as error:
            raise UserError(f"{file} is damaged ({str(error).splitlines()[0]}): take another checkpoint") from None
    return shards


def _assemble(parts, placements: Sequence[Any]):
    """A parameter from its local tensors, an object array in the shape of the device mesh."""
    import torch

    if not placements:
        return parts
    inner = [_assemble(part, placements[1:]) for part in parts]
    return torch.cat(inner, placements[0].dim) if placements[0].is_shard() else inner[0]


def merged(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole parameters of the state dicts of all ranks, as they were saved; UserError if they do not fit together.

    Args:
        shards: by rank. DTensors are put together by their placements, on device meshes of any number of dimensions;
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
            raise UserError(f"{name}: split as {first.placements}, which this export does not know")
        mesh = first.device_mesh.mesh
        local = numpy.empty(tuple(mesh.shape), dtype=object)
        for place in numpy.ndindex(local.shape):
            # to_local() wants the process group that the tensor was made in.
            local[place] = shards[int(mesh[place])][name]._local_tensor
        whole[name] = _assemble(local, first.placements)
        if whole[name].shape != first.shape:
            raise UserError(
                f"{name}: {tuple(whole[name].shape)} from the shards, {tuple(first.shape)} in the model: the files are "
                "of different checkpoints"
            )
    return whole


def _with_adapter(model, state: dict[str, Any], actor: Path):
    """`model` wrapped by peft so that `state` fits it: the modules that have a `lora_A` are adapted."""
    from peft import LoraConfig, get_peft_model

    try:
        meta = json.loads((actor / ADAPTER_FILE).read_text(encoding="utf-8"))
        rank, alpha = int(meta["r"]), meta["lora_alpha"]
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise UserError(
            f"{actor / ADAPTER_FILE}: {error}: without it the adapter's scale is not known; take another checkpoint"
        ) from None
    if not any(name.startswith(ADAPTED) and "lora_" not in name for name in state):
        raise UserError(
            f"{actor} holds the adapter alone, without the model under it: save both "
            "(actor_rollout_ref.actor.checkpoint.save_lora_only=false), or load it onto its base model with peft"
        )
    modules = {name.removeprefix(ADAPTED).split(".lora_A.")[0] for name in state if ".lora_A." in name}
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(modules)))


def _model(state: dict[str, Any], actor: Path, folder: Path, dtype: str | None):
    """The Hugging Face model of `folder`'s config.json with the parameters of `state`, in `dtype` or as saved."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        adapted = any("lora_" in name for name in state)
        model = _with_adapter(base, state, actor) if adapted else base
    try:
        unexpected = model.load_state_dict(state, strict=False, assign=True).unexpected_keys
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{actor}: the weights do not fit its config.json: {reason}") from None
    base.tie_weights()
    if adapted:
        model = model.merge_and_unload()
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    for names, what in ((unexpected, "does not know"), (missing, "has no weights for")):
        if names:
            raise UserError(f"{actor}: the model of its config.json {what} {names[0]} ({len(names)} in all)")
    saved = next(iter(state.values())).dtype
    return model.to(getattr(torch, dtype) if dtype else saved)


# ---- everything beside them ------------------------------------------------------------------------------------------


def _copy_configuration(source: Path, folder: Path) -> None:
    """Tokenizer and configuration; without code, and without the attention it was trained with, known only here."""
    for file in source.iterdir():
        if file.suffix in TOKENIZER_SUFFIXES and not file.name.endswith(".index.json"):  # of weights, which follow
            shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("attn_implementation", "auto_map"):
        config.pop(key, None)
    checkpoints.write_json(folder / "config.json", config)


def _generation_config(model, folder: Path, sampling: dict[str, Any] | None) -> None:
    """End-of-sequence tokens as in training, and `sampling` (temperature, top_p, top_k; -1: off) as the default."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    if sampling is not None:
        top_k = max(sampling["top_k"], 0)  # Hugging Face's "off"
        model.generation_config.update(do_sample=True, **{**sampling, "top_k": top_k})


def _table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)]
    return "\n".join(lines)


def _data_files(identity: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and digest of every training file as it is now, and of the manifest that `data_prep` left beside it."""
    rows = []
    for name in identity["data.train_files"]:
        file = Path(name).expanduser()
        found = [path for path in (file, file.with_name(f"{file.stem}.manifest.json")) if path.is_file()]
        rows += [(path.name, f"`{sha256(path)}`") for path in found]
        if file not in found:
            rows.append((file.name, "no longer there"))
    return rows


def _base_model(path: str) -> str:
    """A model as others know it: of a folder its name, of a snapshot in the hub's cache hub id and revision."""
    snapshot = re.search(r"/models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]+)$", path)
    if snapshot:
        return f"{snapshot[1]}/{snapshot[2]} (revision {snapshot[3]})"
    return path if is_hub_id(path) else Path(path).name


_WHERE = ("run.", "hydra.", "cluster.env", "cluster.ray_address", "trainer.default_", "data.curriculum.folder")
"""Overrides that say where a run was, not what it was."""
_VALUE = re.compile(r"""(?P<quoted>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?P<bare>(?:\\.|[^\[\]{},'"\\])+)""")
"""A value of Hydra's grammar within an override."""


def _portable(override: str, base: str) -> str:
    """An override in which local paths are cut to their last part; the hub id `base` is none."""

    def shorten(match: re.Match[str]) -> str:
        text = match[0]
        mark = text[0] if match["quoted"] else ""
        value = text[1:-1] if mark else text
        if "/" not in value or value.strip() == base or value.strip().startswith("pkg://"):
            return text
        key, colon, rest = value.partition(":") if not mark else ("", "", value)  # an entry of a dictionary
        prefix, value = (key + colon, rest) if colon and "/" not in key else ("", value)
        return mark + prefix + (value.rstrip("/ ").rpartition("/")[2] or "...") + mark

    key, equals, value = override.partition("=")
    return key + equals + _VALUE.sub(shorten, value)


def _reproduction(overrides: Iterable[str], base: str) -> list[str]:
    """The overrides that make the run what it is, without local paths."""
    kept = [override for override in overrides if not override.lstrip("+~").startswith(_WHERE)]
    return [_portable(override, base) for override in kept]


def _run_name(name: str, overrides: Iterable[str], base: str) -> str:
    """A run's name without the folders that overrides put into it (`runs.run_suffix`)."""
    for override in overrides:
        local, portable = (
            re.sub(r"[^A-Za-z0-9=.,_-]", "_", o.partition("=")[2]) for o in (override, _portable(override, base))
        )
        if local != portable:
            name = name.replace(local, portable)
    return name


def model_card(checkpoint: checkpoints.Checkpoint, config: Any | None, dtype: str) -> str:
    """The README.md of an exported folder: where its weights come from.

    Args:
        config: the run's config.yaml, None for a checkpoint outside of its run: then only what the checkpoint itself
            knows is told.
        dtype: precision of the exported weights.
    """
    identity = checkpoint.state["identity"]
    method = {key.removeprefix("method."): value for key, value in identity.items() if key.startswith("method.")}
    base = _base_model(config.model.path) if config is not None else "unknown"
    front = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [paec, verl]"]
    hub_id = base.partition(" (revision ")[0]
    if is_hub_id(hub_id):
        front.append(f"base_model: {hub_id}")
    parts = [
        "\n".join([*front, "---"]),
        f"# {Path(hub_id).name} after {checkpoint.step} steps of {identity['method']}",
        "Trained with reinforcement learning with verifiable rewards by the PAEC recipe for verl. Its license is that "
        "of the base model.",
    ]
    facts = {
        "base model": base,
        "fingerprint of the base model (config.json / bytes of weights)": f"`{identity['model']}`",
        "step": checkpoint.step,
        "precision of the weights": dtype,
        "prompts a step": identity["data.train_batch_size"],
        "workers": identity["workers"],
    }
    run = run_of(checkpoint.folder)
    if config is not None:
        rollout = config.actor_rollout_ref.rollout
        facts |= {
            "run": _run_name(config.run.name, config.run.overrides, hub_id),
            "responses a prompt": rollout.n,
            "sampling in training": f"temperature {rollout.temperature}, top_p {rollout.top_p}, top_k {rollout.top_k}",
            "advantage": config.algorithm.adv_estimator,
            "surrogate": config.actor_rollout_ref.actor.policy_loss.loss_mode,
            "learning rate": config.actor_rollout_ref.actor.optim.lr,
        }
        if config.actor_rollout_ref.model.lora_rank > 0:
            facts["adapter"] = f"LoRA of rank {config.actor_rollout_ref.model.lora_rank}, merged into these weights"
    parts += ["## Provenance", _table(("what", "value"), facts.items())]
    parts += [
        f"## Method: {identity['method']}",
        _table(("field", "value"), method.items()) if method else "No fields.",
    ]
    parts += ["## Training data", _table(("file", "SHA-256"), _data_files(identity))]
    if run is not None:
        records = [record for record in read_metrics(run / METRICS_FILE) if record["step"] == checkpoint.step]
        scores = {
            key.removeprefix("val/"): f"{value:.4f}"
            for record in records
            for key, value in record.items()
            if key.startswith("val/") and value is not None
        }
        shown = _table(("metric", "value"), scores.items()) if scores else "None at this step."
        parts += [f"## Validation at step {checkpoint.step}", shown]
        versions = run / "versions.json"
        if versions.is_file():
            found = json.loads(versions.read_text(encoding="utf-8"))
            parts += ["## Versions", _table(("package", "version"), [(k, v) for k, v in found.items() if v])]
    if config is None:
        parts += ["## Reproduction", "The checkpoint was outside of its run, so its command is not known."]
    else:
        command = shlex.join(["python", "-m", "recipe.paec.train", *_reproduction(config.run.overrides, hub_id)])
        parts += ["## Reproduction", "Files and folders are named without their places.", f"```\n{command}\n```"]
    return "\n\n".join(parts) + "\n"


# ---- the command -----------------------------------------------------------------------------------------------------


def export(folder: Path, target: Path, dtype: str | None = None, replace: bool = False) -> None:
    """Write the checkpoint in `folder` as the Hugging Face folder `target`, all of it or nothing.

    Args:
        dtype: precision of the weights, one of DTYPES; None: that of the run's rollouts, or without a run as saved.
        replace: an export that `target` holds is replaced once the new one is whole.

    Raises:
        UserError: not a checkpoint, an incomplete or damaged one, a target in use, no room.
    """
    from omegaconf import OmegaConf

    try:
        checkpoint = checkpoints.verify(folder)
    except checkpoints.CheckpointError as error:
        raise UserError(f"{error}; name a folder checkpoints/global_step_N of a run") from None
    target = Path(os.path.abspath(target))
    if problem := target_problem(target, replace):
        raise UserError(problem)
    run = run_of(folder)
    config = OmegaConf.load(run / "config.yaml") if run is not None else None
    if dtype is None and config is not None and config.actor_rollout_ref.rollout.dtype in DTYPES:
        dtype = config.actor_rollout_ref.rollout.dtype
    actor = folder / "actor"
    state = merged(_read_shards(actor))
    with building_directory(target) as temporary:
        _copy_configuration(actor / "huggingface", temporary)
        model = _model(state, actor, temporary, dtype)
        size = sum(parameter.nbytes for parameter in model.parameters())
        free = shutil.disk_usage(temporary).free
        if size > free:
            raise UserError(f"{target}: the model needs {size / 2**30:.1f} GiB, {free / 2**30:.1f} are free: make room")
        sampling = None
        if config is not None:
            sampling = {key: config.actor_rollout_ref.rollout[key] for key in ("temperature", "top_p", "top_k")}
        _generation_config(model, temporary, sampling)
        say(f"writing {size / 2**30:.2f} GiB in {str(model.dtype).removeprefix('torch.')}")
        quiet_transformers()
        model.save_pretrained(temporary)
        for file in temporary.glob("*.safetensors"):
            shutil.copymode(temporary / "config.json", file)  # safetensors makes its files private
        card = model_card(checkpoint, config, str(model.dtype).removeprefix("torch."))
        (temporary / CARD).write_text(card, encoding="utf-8")
        names = sorted([EXPORT_FILE, *(file.name for file in temporary.iterdir())])
        checkpoints.write_json(temporary / EXPORT_FILE, {**_origin(folder, checkpoint.step), "files": names})
        if problem := target_problem(target, replace):
            raise UserError(problem)
        if target.exists():
            remove(target, folders.exported_files(target))
        os.rename(temporary, target)
    say(f"step {checkpoint.step} is exported to {target}")


def checkpoint_in(folder: Path) -> Path:
    """The checkpoint that `folder` is, or the newest whole one of the run (or of the `checkpoints/`) that it is.

    Raises:
        UserError: there is no such folder, or none in it that is whole.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: name a folder checkpoints/global_step_N of a run, or a run")
    root = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    if not checkpoints.steps(root):
        if root != folder:
            raise UserError(f"{folder}: a run without any checkpoint yet (trainer.save_freq): train it first")
        return folder
    try:
        newest, damaged = checkpoints.latest(root)
    except checkpoints.CheckpointError as error:
        raise UserError(f"{error}; name another checkpoint") from None
    if newest is None:
        raise UserError(
            *(str(error) for error in damaged), f"no checkpoint in {root} is whole: there is nothing to export"
        )
    return newest.folder


def export_in_process(checkpoint: Path, target: Path, log: Path) -> None:
    """`export` in a process of its own, replacing `target`, its output in `log`; UserError if it fails."""
    command = [sys.executable, "-m", "recipe.paec.export", str(checkpoint), str(target), "--replace"]
    with open(log, "wb") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False, preexec_fn=die_with_parent)
    if done.returncode != 0:
        said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        reason = said[-1].removeprefix("error: ") if said else "no message"
        raise UserError(f"the export of {checkpoint} to Hugging Face format failed: {reason} (log: {log})")


def main() -> int:
    parser = argparse.ArgumentParser(prog="recipe.paec.export", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoints/global_step_N of a run, or a run: its newest one")
    parser.add_argument("target", type=Path, nargs="?", help="the folder to be made")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: that of the run's rollouts)")
    parser.add_argument("--replace", action="store_true", help="replace a target that exists")
    options = parser.parse_args()
    from safetensors import SafetensorError

    try:
        checkpoint = checkpoint_in(options.checkpoint)
        if options.target is None:
            raise UserError(f"name the folder to be made: python -m recipe.paec.export {options.checkpoint} TARGET")
        if checkpoint != options.checkpoint:
            say(f"{options.checkpoint}: its newest whole checkpoint is {checkpoint.name}")
        export(checkpoint, options.target, options.dtype, options.replace)
    except UserError as error:
        return complain(error.problems)
    except SafetensorError as error:
        return complain([f"{options.target}: cannot be written ({error}): make room, or name another folder"])
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        return complain([f"{error.filename or options.target}: {error.strerror}: make room, or name another folder"])
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
