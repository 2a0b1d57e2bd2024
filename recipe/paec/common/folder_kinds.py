"""The kinds of folders of this recipe: the files of each, and the mark that says which kind a folder is.

A folder belongs to the recipe if it is marked (`MARK`, written when it is created), or has the files of folders from
before marks existed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from data_prep.cleaning import Contents, contents, matches
from recipe.paec.common.errors import UserError

MARK, LOCK = ".paec_folder.json", ".lock"


# ---- what is written where -------------------------------------------------------------------------------------------


def whole(*names: str) -> tuple[str, ...]:
    """Files that appear by rename, and their temporary names (`write_json`, `atomic_write`)."""
    return tuple(p for name in names for p in (name, f".{name}.tmp", f".{name}.#.tmp", f".{name}.partial-*"))


def _below(folder: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{pattern}" for pattern in patterns)


def _role(name: str) -> tuple[str, ...]:
    shards = tuple(f"{part}_world_size_#_rank_#.pt" for part in ("model", "optim", "extra_state"))
    return _below(name, (*shards, "fsdp_config.json", "lora_train_meta.json", "lora_adapter/*", "huggingface/*"))


CHECKPOINT_STATE = "paec_state.json"
CHECKPOINT = (*whole(CHECKPOINT_STATE), "data.pt", "transfer_queue/**", *_role("actor"), *_role("critic"))
"""Files of a checkpoint, `global_step_N`; patterns of `data_prep.cleaning`, as all below."""

TRACKERS_FILE = "trackers.json"
"""Under which name a run is known to experiment trackers."""
EXPORT_RECORD = "paec_export.json"
EXPORTED = (
    *whole(EXPORT_RECORD, "config.json"),
    *("README.md", "generation_config.json", "model.safetensors", "model-#-of-#.safetensors"),
    *("model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "normalizer.json", "chat_template.jinja"),
    *("chat_template.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
"""Files of an exported model, in addition to those that its EXPORT_RECORD lists."""


def _exported(name: str) -> tuple[str, ...]:
    """An export within another folder, and the leftovers of a killed one."""
    return tuple(p for folder in (name, f".{name}.tmp", f".{name}.partial-*") for p in _below(folder, EXPORTED))


_EVALUATION = (
    *whole("evaluation.json", "generation.json", "samples.jsonl", "scores.json", "scores.md"),
    *("job.json", "journal.jsonl", "generation.log", "export.log", ".ray_token", *_exported("model")),
)
_CURVE = whole("curve.json", "curve.png")
_STEPS = tuple(f"checkpoints/{name}" for name in ("global_step_#", "damaged_global_step_#", "damaged_global_step_#-#"))
_RUN = (
    *whole("config.yaml", "versions.json", "metrics.jsonl", "prompts.jsonl", "failure.json", "heartbeat.json"),
    *whole("report.html", "tokens.html", TRACKERS_FILE),
    *("tensorboard/events.out.tfevents.*", "trackio/**", "mlflow/**"),
    *("heartbeat.tmp", "stop", "train.log", "export.log", ".ray_token"),
    *("rollouts/#.jsonl", "validation/#.jsonl", "checkpoints/latest_checkpointed_iteration.txt"),
    *_below("tokens", whole("#.parquet")),
    *_below("tokens/validation", whole("#.parquet", "#.waiting.pt")),
    *(path for step in _STEPS for path in _below(step, CHECKPOINT)),
    *_exported("huggingface"),
    *_below("evaluation/*", _CURVE),
    *_below("evaluation/*/step_#", (*_EVALUATION, MARK, LOCK)),
)
_LAB = (*whole("config.yaml", "metrics.jsonl", "state.pt", "report.html"), "problems.jsonl", "lab.log")
_GRID = (*whole("table.md", "table.json", "curves.png"), "*-seed#.log", "slurm-#_#.out", "slurm-#-table.out")


# ---- folders from before marks existed -------------------------------------------------------------------------------


def read_json_or_none(file: Path) -> Any:
    """The content of a JSON file, None if it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _configuration(folder: Path) -> Mapping[str, Any]:
    """The resolved configuration of a folder, empty if it has none that can be read."""
    try:
        config = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _older_run(folder: Path) -> dict[str, Any] | None:
    """Recognize a run by its resolved configuration, with the identity that only this recipe writes."""
    config = _configuration(folder)
    try:
        if not isinstance(config["identity"], dict):
            return None
        return {"experiment": str(config["run"]["experiment"]), "name": str(config["run"]["name"])}
    except (KeyError, TypeError):
        return None


def _older_lab(folder: Path) -> dict[str, Any] | None:
    """Recognize a run of the laboratory by top-level keys that no other configuration has."""
    return {} if {"task", "prompts", "mini_batch"} <= _configuration(folder).keys() else None


def _older_by(name: str, *fields: set[str]) -> Callable[[Path], dict[str, Any] | None]:
    """Recognize a folder by a JSON file with exactly one of these sets of fields."""

    def find(folder: Path) -> dict[str, Any] | None:
        found = read_json_or_none(folder / name)
        return {} if isinstance(found, dict) and found.keys() in fields else None

    return find


_SAMPLED = {"model", "seed", "chat_template", "context_length", "dtype"}


# ---- kinds -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """One kind of folder."""

    name: str
    """Name of the kind in the mark."""
    noun: str
    """Name of the kind in errors."""
    files: tuple[str, ...]
    """Everything that is written into it, as patterns of `data_prep.cleaning`."""
    elsewhere: str
    """How to choose another folder, in errors."""
    fresh: str
    """The option that clears it, in errors."""
    older: Callable[[Path], dict[str, Any] | None]
    """Content that the mark of an unmarked folder of this kind would have, None for any other folder."""
    first: tuple[str, ...] = ()
    """Those of `files` that are deleted first, so that an interrupted deletion leaves an unfinished folder."""
    last: tuple[str, ...] = ()
    """Those of `files` that are deleted last: what says to which settings the others belong."""

    def same_command(self, fresh: bool) -> str:
        """How a message names the command that resumes; `fresh`: whether this one cleared the folder first."""
        return f"the same command without {self.fresh}" if fresh else "the same command"


RUN = Kind(
    "run",
    "run",
    _RUN,
    "choose another run.name",
    "run.fresh=true",
    _older_run,
    first=(*(f"{step}/{CHECKPOINT_STATE}" for step in _STEPS), f"huggingface/{EXPORT_RECORD}"),
)
EVALUATION = Kind(
    "evaluation",
    "evaluation",
    _EVALUATION,
    "choose a new or empty folder with output=...",
    "fresh=true",
    _older_by("evaluation.json", _SAMPLED | {"protocol", "benchmarks"}, {"samples", "benchmarks"}),
    first=("scores.json", "journal.jsonl", "samples.jsonl"),
    last=("evaluation.json",),
)
CURRICULUM = replace(
    EVALUATION,
    name="curriculum",
    noun="prompt scoring",
    elsewhere="choose another folder with run.root=...",
    fresh="run.fresh=true",
    older=_older_by("evaluation.json", _SAMPLED | {"sampling", "prompts"}),
)
GRID = Kind(
    "grid",
    "grid",
    _GRID,
    "choose another GRID",
    "",
    _older_by("table.json", {"about", "level", "methods", "runs", "remarks"}),
)
LAB = Kind(
    "lab",
    "lab run",
    _LAB,
    "choose another name=... or output=...",
    "fresh=true",
    _older_lab,
    first=("state.pt",),
)
KINDS = {kind.name: kind for kind in (RUN, EVALUATION, CURRICULUM, GRID, LAB)}


def mark_of(folder: Path) -> dict[str, Any] | None:
    """`{"kind": ..., ...}`: a folder's mark, or the one it would have; None if the folder is not the recipe's."""
    found = read_json_or_none(folder / MARK)
    if isinstance(found, dict) and found.get("kind") in KINDS:
        return found
    for kind in KINDS.values():
        older = kind.older(folder)
        if older is not None:
            return {"kind": kind.name, **older}
    return None


def no_lab(folder: Path, what: str) -> None:
    """UserError for a run of the laboratory where a command needs `what`, which only the pipeline's runs have."""
    if (mark_of(folder) or {}).get("kind") == LAB.name:
        raise UserError(f"{folder}: is a run of the laboratory, which writes no {what}: train it with paec train")


def exported_files(folder: Path) -> tuple[str, ...]:
    """Patterns of the files of an exported model: those that its record lists, and those of any export."""
    return (*EXPORTED, *_listed(folder / EXPORT_RECORD))


def checkpoint_files(folder: Path) -> tuple[str, ...]:
    """Patterns of the files of a checkpoint: those that its state lists, and those of any checkpoint."""
    return (*CHECKPOINT, *_listed(folder / CHECKPOINT_STATE))


def _listed(record: Path) -> list[str]:
    found = read_json_or_none(record)
    names = found.get("files") if isinstance(found, dict) else None
    return [name for name in names or () if isinstance(name, str) and not set("*#") & set(name)]


def files_of(folder: Path, kind: Kind) -> tuple[str, ...]:
    """The patterns of a kind, and the files that the records within a folder list."""
    places = [(name, exported_files) for name in ("huggingface" if kind is RUN else "model",)]
    if kind is RUN:
        states = (folder / "checkpoints").glob(f"*global_step_*/{CHECKPOINT_STATE}")
        own = [path for state in states if matches(path := str(state.parent.relative_to(folder)), _STEPS)]
        places += [(path, checkpoint_files) for path in own]
    return (*kind.files, *(p for place, files in places for p in _below(place, files(folder / place))))


def inside(folder: Path, kind: Kind) -> Contents:
    """Contents of a folder: the files of its kind, links in their place, and files of others."""
    found = contents(folder, (*files_of(folder, kind), MARK, *whole(MARK), LOCK))
    return replace(found, own=[path for path in found.own if not matches(path, (*whole(MARK), LOCK))])
