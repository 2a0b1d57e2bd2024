"""Checkpoints, which are complete or ignored, and the state of the methods in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.cleaning import remove
from recipe.paec.common import folder_kinds
from recipe.paec.common.files import write_json
from recipe.paec.common.records import first_difference

STATE_FILE = folder_kinds.CHECKPOINT_STATE
FORMAT = 3
BLOCK, BLOCKS = 1 << 20, 16
"""A digest covers at most this many blocks of this many bytes, spread evenly: files of up to 16 MiB completely."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, with the remedy."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that was complete, but whose files have changed since."""

    def __init__(self, folder: Path, problem: str):
        super().__init__(f"{folder} is damaged: {problem}")
        self.folder = folder


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, trainer step and state."""

    folder: Path
    step: int
    state: dict[str, Any]

    @property
    def score(self) -> float | None:
        """Validation score at its step, None where there was no validation."""
        return self.state["score"]


def folder_of(root: Path, step: int) -> Path:
    """verl's folder of the checkpoint after `step`."""
    return root / f"global_step_{step}"


def digest(file: Path) -> dict[str, Any]:
    """`{"bytes": size, "sha256": of BLOCKS blocks spread over the file}`."""
    size = file.stat().st_size
    total = hashlib.sha256()
    last = max(size - BLOCK, 0)
    starts = range(0, size, BLOCK) if size <= BLOCK * BLOCKS else [last * i // (BLOCKS - 1) for i in range(BLOCKS)]
    with open(file, "rb") as stream:
        for start in starts:
            stream.seek(start)
            total.update(stream.read(BLOCK))
    return {"bytes": size, "sha256": total.hexdigest()}


def _files(folder: Path) -> list[Path]:
    """All files of a checkpoint except its state (and the temporary names of a state that was never renamed)."""
    return sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith((STATE_FILE, f".{STATE_FILE}")))


def read(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`.

    Raises:
        CheckpointError: it has no state (it was not saved completely), or one of another format.
        DamagedCheckpoint: its state cannot be read.
    """
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: {STATE_FILE} is missing, so this recipe did not finish saving it") from None
    except ValueError as error:
        raise DamagedCheckpoint(folder, f"{STATE_FILE} cannot be read ({error})") from None
    if not isinstance(state, dict) or "format" not in state:
        raise DamagedCheckpoint(folder, f"{STATE_FILE} has no field format")
    if state["format"] != FORMAT:
        raise CheckpointError(f"{folder / STATE_FILE}: has format {state['format']}, but this version reads {FORMAT}")
    missing = sorted({"step", "identity", "methods", "score", "files"} - set(state))
    if missing:
        raise DamagedCheckpoint(folder, f"{STATE_FILE} lacks {', '.join(missing)}")
    return Checkpoint(folder=folder, step=state["step"], state=state)


def verify(folder: Path) -> Checkpoint:
    """The checkpoint in `folder` if every file is as it was saved; errors of `read`, and DamagedCheckpoint."""
    checkpoint = read(folder)
    for name, saved in checkpoint.state["files"].items():
        file = folder / name
        if not file.is_file():
            raise DamagedCheckpoint(folder, f"{name} is missing")
        size = file.stat().st_size
        if size != saved["bytes"]:
            raise DamagedCheckpoint(folder, f"{name} has {size} bytes, but {saved['bytes']} were saved")
        if digest(file) != saved:
            raise DamagedCheckpoint(folder, f"{name} has changed since it was saved")
    return checkpoint


def steps(root: Path) -> list[tuple[int, Path]]:
    """All `global_step_N` folders under `root`, newest first, complete or not."""
    found = []
    for folder in root.glob("global_step_*"):
        match = re.fullmatch(r"global_step_(0|[1-9][0-9]*)", folder.name)
        if match and folder.is_dir():
            found.append((int(match[1]), folder))
    return sorted(found, reverse=True)


def is_complete(folder: Path) -> bool:
    """Whether the save of `folder` was finished."""
    return (folder / STATE_FILE).is_file()


def complete(root: Path) -> list[Path]:
    """Folders of all checkpoints under `root` whose save was finished, newest first."""
    return [folder for _, folder in steps(root) if is_complete(folder)]


def latest(root: Path) -> tuple[Checkpoint | None, list[DamagedCheckpoint]]:
    """The newest intact checkpoint under `root`, or None, and what is wrong with the newer ones."""
    damaged = []
    for folder in complete(root):
        try:
            return verify(folder), damaged
        except DamagedCheckpoint as error:
            damaged.append(error)
    return None, damaged


def _delete(folder: Path) -> list[str]:
    """Delete the files of a checkpoint, and its folder if it is then empty.

    The state file is deleted first, so an interrupted deletion never leaves a checkpoint that looks complete.

    Returns:
        The deleted files. Nothing is deleted behind a symbolic link, and no file that does not belong to a checkpoint.
    """
    if folder.is_symlink():
        return []
    patterns = [f"{folder.name}/{pattern}" for pattern in folder_kinds.checkpoint_files(folder)]
    return remove(folder, [STATE_FILE]) + remove(folder.parent, patterns)


def remove_incomplete(root: Path) -> list[Path]:
    """Delete the leftovers of interrupted saves; returns the folders in which something was deleted."""
    return [folder for _, folder in steps(root) if not is_complete(folder) and (_delete(folder) or not folder.exists())]


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, so that its step can be saved again; returns its new path."""
    place, copies = folder.with_name(f"damaged_{folder.name}"), 1
    while os.path.lexists(place):
        copies += 1
        place = folder.with_name(f"damaged_{folder.name}-{copies}")
    os.rename(folder, place)
    return place


def commit(
    root: Path, step: int, identity: dict[str, Any], methods: dict[str, Any], score: float | None = None
) -> None:
    """Declare the checkpoint of `step` complete: all its files are on disk, and listed in its state.

    Args:
        identity: what a run must agree with to resume from it.
        methods: state of each method, by its name.
        score: validation score at this step.
    """
    folder = folder_of(root, step)
    files = {}
    for file in _files(folder):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
        files[str(file.relative_to(folder))] = digest(file)
    state = {"format": FORMAT, "step": step, "identity": identity, "methods": methods, "score": score, "files": files}
    write_json(folder / STATE_FILE, state)


def best(root: Path) -> list[Checkpoint]:
    """Complete checkpoints with a validation score, the highest first (ties: the newest first)."""
    scored = []
    for folder in complete(root):
        try:
            checkpoint = read(folder)
        except CheckpointError:
            continue  # cannot be the best one; `latest` says what is wrong with it
        if checkpoint.score is not None:
            scored.append(checkpoint)
    return sorted(scored, key=lambda checkpoint: -checkpoint.score)


def prune(root: Path, keep: int, keep_best: int = 0) -> None:
    """Delete complete checkpoints except the newest `keep` and the `keep_best` with the highest score."""
    kept = {*complete(root)[:keep], *(checkpoint.folder for checkpoint in best(root)[:keep_best])}
    for folder in complete(root):
        if folder not in kept:
            _delete(folder)


def identity_difference(wanted: dict[str, Any], found: dict[str, Any]) -> str | None:
    """A sentence on the first difference between a run and a checkpoint, or None."""
    if (difference := first_difference(found, wanted)) is None:
        return None
    key, recorded, asked = difference
    return f"{key} is {recorded!r} in the checkpoint and {asked!r} in this command"


def run_of(checkpoint: Path) -> Path | None:
    """Directory of the run that a checkpoint is in, None for one that was moved elsewhere."""
    run = Path(os.path.abspath(checkpoint)).parents[1]  # `..` is resolved, links are not
    return run if (run / "config.yaml").is_file() else None
