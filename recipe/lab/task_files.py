"""Which files of its task a run was trained with: hashes of the model and of the data that the laboratory reads."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from data_prep.files import TRAIN_FILE, VALIDATION_FILE, WARM_START_FILE, sha256


def hashes_of(task: Path) -> dict[str, str]:
    """File, as a path below the task's folder -> its SHA-256; model cards and hidden files left out."""
    data = (task / "data" / name for name in (TRAIN_FILE, VALIDATION_FILE, WARM_START_FILE))
    files = [file for file in (*sorted((task / "model").iterdir()), *data) if file.is_file()]
    read = [file for file in files if file.suffix != ".md" and not file.name.startswith(".")]
    return {file.relative_to(task).as_posix(): _hash(file, *_version(file)) for file in read}


def _version(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=256)
def _hash(file: Path, *_: int) -> str:
    """Once for each version of a file: a sweep has many runs of one task."""
    return sha256(file)
