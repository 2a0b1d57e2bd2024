"""Folders of runs, files of others beside them, and what is below a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

from recipe.paec.common import folder_kinds

MINE = {"experiment": "tiny_cpu", "name": "mine"}


def tree(root: Path) -> dict[str, tuple[str, bytes | str]]:
    """Every file, folder and link below `root`, with its content or target."""
    found: dict[str, tuple[str, bytes | str]] = {}
    for place, names, files in os.walk(root):
        for name in names + files:
            path = Path(place, name)
            kind = "link" if path.is_symlink() else "file" if path.is_file() else "folder"
            found[str(path.relative_to(root))] = (
                kind,
                os.readlink(path) if kind == "link" else path.read_bytes() * (kind == "file") if kind == "file" else "",
            )
    return found


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


RUN_FILES = (
    "config.yaml",
    "versions.json",
    "metrics.jsonl",
    "prompts.jsonl",
    "heartbeat.json",
    "train.log",
    "rollouts/1.jsonl",
    "tokens/1.parquet",
    "tokens/.2.parquet.partial-4711-abc",
    "tokens/validation/1.parquet",
    "tokens/validation/2.waiting.pt",
    "tokens/validation/.2.waiting.pt.partial-4711-abc",
    "tokens.html",
    "validation/2.jsonl",
    "checkpoints/latest_checkpointed_iteration.txt",
    "checkpoints/global_step_2/paec_state.json",
    "checkpoints/global_step_2/data.pt",
    "checkpoints/global_step_2/actor/model_world_size_2_rank_0.pt",
    "checkpoints/global_step_2/actor/huggingface/config.json",
    "checkpoints/damaged_global_step_1/actor/fsdp_config.json",
    "checkpoints/damaged_global_step_1-2/data.pt",
    "huggingface/config.json",
    "huggingface/model-00001-of-00002.safetensors",
    ".huggingface.tmp/model.safetensors",
    "evaluation/luffy-aime24/curve.json",
    "evaluation/luffy-aime24/step_2/samples.jsonl",
    "evaluation/luffy-aime24/step_2/.lock",
)


def marked(folder: Path, kind: folder_kinds.Kind = folder_kinds.RUN, **about: str) -> Path:
    write(folder, *RUN_FILES)
    (folder / folder_kinds.MARK).write_text(json.dumps({"kind": kind.name, **(about or MINE)}))
    return folder
