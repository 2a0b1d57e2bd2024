"""Checkpoints that are whole or do not count, and the state that belongs to the method.

verl writes `global_step_N/` piece by piece and a tracker file last. This recipe adds `paec_state.json` after everything
else, by rename: a folder without it is the remains of a killed save and is never resumed from. The file says which
method, model and data the checkpoint belongs to, and holds the anchor.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATE_FILE = "paec_state.json"
FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, with the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, trainer step and state."""

    folder: Path
    step: int
    state: dict[str, Any]


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def folder_of(root: Path, step: int) -> Path:
    """verl's folder of the checkpoint after `step`."""
    return root / f"global_step_{step}"


def read(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`; CheckpointError if its state is missing or unreadable."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise CheckpointError(f"{folder / STATE_FILE}: format {state['format']}, this version reads {FORMAT}")
        return Checkpoint(folder=folder, step=int(state["step"]), state=state)
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {STATE_FILE}, so it was not saved completely by this recipe") from None
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder / STATE_FILE}: unreadable ({error}); delete the folder") from None


def steps(root: Path) -> list[tuple[int, Path]]:
    """All `global_step_N` folders under `root`, newest first, complete or not."""
    found = []
    for folder in root.glob("global_step_*"):
        number = folder.name.removeprefix("global_step_")
        if folder.is_dir() and number.isdigit():
            found.append((int(number), folder))
    return sorted(found, reverse=True)


def latest(root: Path) -> Checkpoint | None:
    """The newest complete checkpoint under `root`, or None."""
    for _, folder in steps(root):
        if (folder / STATE_FILE).is_file() and (folder / "actor").is_dir():
            return read(folder)
    return None


def remove_incomplete(root: Path) -> list[Path]:
    """Delete the remains of killed saves; returns what was deleted."""
    removed = []
    for _, folder in steps(root):
        if not (folder / STATE_FILE).is_file() or not (folder / "actor").is_dir():
            shutil.rmtree(folder)
            removed.append(folder)
    return removed


def commit(root: Path, step: int, identity: dict[str, Any], anchor: dict[str, Any] | None) -> None:
    """Declare the checkpoint of `step` complete."""
    state = {"format": FORMAT, "step": step, "identity": identity, "anchor": anchor}
    write_json(folder_of(root, step) / STATE_FILE, state)


def prune(root: Path, keep: int) -> None:
    """Delete complete checkpoints beyond the newest `keep`; the state file goes first, so a kill leaves no half."""
    complete = [folder for _, folder in steps(root) if (folder / STATE_FILE).is_file()]
    for folder in complete[keep:]:
        (folder / STATE_FILE).unlink()
        shutil.rmtree(folder)


def identity_difference(wanted: dict[str, Any], found: dict[str, Any]) -> str | None:
    """A sentence on the first difference between what a run wants and what a checkpoint is, or None."""
    for key in sorted(set(wanted) | set(found)):
        if wanted.get(key) != found.get(key):
            return f"{key} is {found.get(key)!r} in the checkpoint and {wanted.get(key)!r} in this command"
    return None
