"""A checkpoint as a Hugging Face folder: weights, tokenizer, configuration, and the record of what it was made from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from data_prep.cleaning import contents, remove
from data_prep.files import building_directory, on_disk
from data_prep.progress import quiet_transformers
from recipe.paec.common import folder_kinds
from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import write_json
from recipe.paec.common.model_files import fingerprint, read_config
from recipe.paec.common.process_tree import die_with_parent
from recipe.paec.export.model_card import CARD, model_card
from recipe.paec.export.shards import DTYPES, merged, read_shards, with_adapter
from recipe.paec.run import checkpoints
from recipe.paec.run.checkpoints import run_of

EXPORT_FILE = folder_kinds.EXPORT_RECORD
"""Record in an exported folder: its run and step, the checkpoint's fingerprint, and the names of its files."""
TOKENIZER_SUFFIXES = (".json", ".jinja", ".txt", ".model")
"""Files that verl writes next to the shards and that are copied; they contain no code."""


def _origin(checkpoint: Path, step: int) -> dict[str, Any]:
    run = run_of(checkpoint)
    return {"run": run.name if run else None, "step": step}


def holds(folder: Path, checkpoint: Path, step: int) -> bool:
    """Whether `folder` is the export of this checkpoint as it is now, whose step is `step`.

    Exports of earlier versions have no fingerprint of their checkpoint: its run and step count.
    """
    found, origin = _record(folder), _origin(checkpoint, step)
    if found is None or {key: found[key] for key in origin} != origin:
        return False
    return found.get("checkpoint") is None or found["checkpoint"] == fingerprint(checkpoint)


def is_export_of(folder: Path, checkpoint: Path, dtype: str | None) -> bool:
    """Whether `folder` is an export of `checkpoint` as it is now, in `dtype` (None: in any); older ones do not say."""
    found = _record(folder)
    if found is None or found.get("checkpoint") != fingerprint(checkpoint):
        return False
    return dtype in (None, read_config(folder).get("dtype"))


def _record(folder: Path) -> dict[str, Any] | None:
    """Content of EXPORT_FILE; None for a folder that is not an export."""
    try:
        found = json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"run", "step"} <= found.keys() else None


def target_error(target: Path, replace: bool) -> str | None:
    """Why nothing can be exported to `target`, None if it can; touches nothing.

    Only what this command has written is replaced: a folder with other files stays as it is.
    """
    if target.is_symlink():
        return f"{target} is a symbolic link: give the folder itself, or choose a new one"
    if target.exists() and not target.is_dir():
        return f"{target} is a file: choose a new folder"
    if not target.exists() or not any(target.iterdir()):
        return None
    if not replace:
        return f"{target} exists and is not empty: choose a new folder, or delete it"
    if _record(target) is None:
        return f"{target} was not written by this command: choose a new folder, or delete it"
    found = contents(target, folder_kinds.exported_files(target))
    if strangers := found.links + found.foreign:
        return f"{target / strangers[0]} is not part of the export in {target}: move it away, or choose a new folder"
    return None


def _model(state: dict[str, Any], actor: Path, folder: Path, dtype: str | None):
    """The Hugging Face model of `folder`'s config.json with the parameters of `state`, in `dtype` or as saved."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        adapted = any("lora_" in name for name in state)
        model = with_adapter(base, state, actor) if adapted else base
    try:
        unexpected = model.load_state_dict(state, strict=False, assign=True).unexpected_keys
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{actor}: the weights do not match its config.json: {reason}") from None
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
    """Tokenizer and configuration; without code, and without the training's attention, which only exists here."""
    for file in source.iterdir():
        if file.suffix in TOKENIZER_SUFFIXES and not file.name.endswith(
            ".index.json"
        ):  # not the index of the weights, which are written later
            shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("attn_implementation", "auto_map"):
        config.pop(key, None)
    write_json(folder / "config.json", config)


def _generation_config(model, folder: Path, sampling: dict[str, Any] | None) -> None:
    """End-of-sequence tokens as in training, and `sampling` (temperature, top_p, top_k; -1: off) as the default."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    if sampling is not None:
        top_k = max(sampling["top_k"], 0)  # Hugging Face's "off"
        model.generation_config.update(do_sample=True, **{**sampling, "top_k": top_k})


# ---- the command -----------------------------------------------------------------------------------------------------


def export(folder: Path, target: Path, dtype: str | None = None, replace: bool = False) -> None:
    """Write the checkpoint in `folder` as the Hugging Face folder `target`, completely or not at all.

    Args:
        dtype: precision of the weights, one of DTYPES; None: that of the run's rollouts, or as saved without a run.
        replace: replace an export in `target` once the new one is complete.

    Raises:
        UserError: not a checkpoint, an incomplete or damaged one, a target in use, not enough disk space.
    """
    from omegaconf import OmegaConf

    try:
        checkpoint = checkpoints.verify(folder)
    except checkpoints.CheckpointError as error:
        raise UserError(f"{error}: give a folder checkpoints/global_step_N of a run") from None
    target = Path(os.path.abspath(target))
    if problem := target_error(target, replace):
        raise UserError(problem)
    run = run_of(folder)
    config = OmegaConf.load(run / "config.yaml") if run is not None else None
    if dtype is None and config is not None and config.actor_rollout_ref.rollout.dtype in DTYPES:
        dtype = config.actor_rollout_ref.rollout.dtype
    actor = folder / "actor"
    state = merged(read_shards(actor))
    with building_directory(target) as temporary:
        _copy_configuration(actor / "huggingface", temporary)
        model = _model(state, actor, temporary, dtype)
        size = sum(parameter.nbytes for parameter in model.parameters())
        free = shutil.disk_usage(temporary).free
        if size > free:
            raise UserError(
                f"{target}: the model needs {size / 2**30:.1f} GiB, but {free / 2**30:.1f} are free: free some space"
            )
        sampling = None
        if config is not None:
            sampling = {key: config.actor_rollout_ref.rollout[key] for key in ("temperature", "top_p", "top_k")}
        _generation_config(model, temporary, sampling)
        say(f"writing {size / 2**30:.2f} GiB in {str(model.dtype).removeprefix('torch.')}")
        quiet_transformers()
        model.save_pretrained(temporary)
        for file in temporary.glob("*.safetensors"):
            shutil.copymode(temporary / "config.json", file)  # safetensors creates private files
        card = model_card(checkpoint, config, str(model.dtype).removeprefix("torch."))
        (temporary / CARD).write_text(card, encoding="utf-8")
        names = sorted([EXPORT_FILE, *(file.name for file in temporary.iterdir())])
        record = {**_origin(folder, checkpoint.step), "checkpoint": fingerprint(folder), "files": names}
        write_json(temporary / EXPORT_FILE, record)
        on_disk(temporary)
        if problem := target_error(target, replace):
            raise UserError(problem)
        if target.exists():
            remove(target, folder_kinds.exported_files(target))
        os.rename(temporary, target)
    say(f"exported step {checkpoint.step} to {target}")


def checkpoint_in(folder: Path) -> Path:
    """The checkpoint at `folder`, or the newest complete one if it is a run (or its `checkpoints/`).

    Raises:
        UserError: the folder does not exist, or contains no complete checkpoint.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: does not exist: give a folder checkpoints/global_step_N of a run, or a run")
    folder_kinds.no_lab(folder, "checkpoint that can be exported")
    root = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    if not checkpoints.steps(root):
        if root != folder:
            raise UserError(f"{folder}: the run has no checkpoint yet (trainer.save_freq): train it first")
        return folder
    try:
        newest, damaged = checkpoints.latest(root)
    except checkpoints.CheckpointError as error:
        raise UserError(f"{error}: choose another checkpoint") from None
    if newest is None:
        raise UserError(
            *(str(error) for error in damaged), f"no checkpoint in {root} is complete: there is nothing to export"
        )
    return newest.folder


def export_in_process(checkpoint: Path, target: Path, log: Path) -> None:
    """`export` in its own process, replacing `target`, with its output in `log`; UserError if it fails."""
    command = [sys.executable, "-m", "recipe.paec.export", str(checkpoint), str(target), "--replace"]
    with open(log, "wb") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False, preexec_fn=die_with_parent)
    if done.returncode != 0:
        said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        reason = said[-1].removeprefix("error: ") if said else "no message"
        raise UserError(f"the export of {checkpoint} to Hugging Face format failed: {reason} (log: {log})")
