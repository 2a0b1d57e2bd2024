"""The model card of an export."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.files import sha256
from recipe.paec.common.model_files import is_hub_id
from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.paec.run import checkpoints
from recipe.paec.run.checkpoints import run_of

CARD = "README.md"


def _table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)]
    return "\n".join(lines)


def _data_files(identity: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and digest of every training file as it is now, and of the manifest that `data_prep` wrote next to it."""
    rows = []
    for name in identity["data.train_files"]:
        file = Path(name).expanduser()
        found = [path for path in (file, file.with_name(f"{file.stem}.manifest.json")) if path.is_file()]
        rows += [(path.name, f"`{sha256(path)}`") for path in found]
        if file not in found:
            rows.append((file.name, "no longer exists"))
    return rows


def _base_model(path: str) -> str:
    """A model's public name: the name of a folder, or hub id and revision of a snapshot in the hub's cache."""
    snapshot = re.search(r"/models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]+)$", path)
    if snapshot:
        return f"{snapshot[1]}/{snapshot[2]} (revision {snapshot[3]})"
    return path if is_hub_id(path) else Path(path).name


_WHERE = ("run.", "hydra.", "cluster.env", "cluster.ray_address", "trainer.default_", "data.curriculum.folder")
"""Overrides that say where a run was stored, not what it was."""
_VALUE = re.compile(r"""(?P<quoted>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?P<bare>(?:\\.|[^\[\]{},'"\\])+)""")
"""A value of Hydra's grammar within an override."""


def _portable(override: str, base: str) -> str:
    """An override with local paths cut to their last part; the hub id `base` is not a local path."""

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
    """The overrides that define the run, without local paths."""
    kept = [override for override in overrides if not override.lstrip("+~").startswith(_WHERE)]
    return [_portable(override, base) for override in kept]


def _run_name(name: str, overrides: Iterable[str], base: str) -> str:
    """A run's name without the folders that overrides put into it (`config.resolve.run_suffix`)."""
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
        config: the run's config.yaml, None for a checkpoint outside its run: then only what the checkpoint itself
            contains is shown.
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
        parts += ["## Reproduction", "The checkpoint was outside its run's folder, so its command is not known."]
    else:
        command = shlex.join(["python", "-m", "recipe.paec.train", *_reproduction(config.run.overrides, hub_id)])
        parts += ["## Reproduction", "Files and folders are shown without their paths.", f"```\n{command}\n```"]
    return "\n\n".join(parts) + "\n"
