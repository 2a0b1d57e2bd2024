"""Files and folders that appear whole or not at all: built under a temporary sibling name, then renamed."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""What marks a temporary name; `remove_leftovers` finds the remains of a killed process by it."""


def _partial(path: Path) -> Path:
    # A sibling, because os.replace is atomic within one file system only; the process id keeps writers apart.
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}{PARTIAL}{os.getpid()}")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it replaces `path`, on an exception it is removed."""
    path = Path(path)
    partial = _partial(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it becomes `path`, on an exception it is removed.

    Raises:
        FileExistsError: `path` exists, before or after the folder was filled. Nothing is overwritten.
    """
    path = Path(path)
    _refuse_existing(path)
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        _refuse_existing(path)
        os.rename(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what killed `atomic_write` and `atomic_directory` calls left directly in `folder`."""
    for partial in Path(folder).glob(f".*{PARTIAL}*"):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists already; remove it or name another folder")
