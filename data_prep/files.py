"""Files and folders that appear completely or not at all: built under a temporary sibling name, then renamed.

What has its name is on the disk: a power failure leaves the old content or the new.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""Marks a temporary name. Its writer keeps it locked, so an unlocked one was left by a killed writer."""

AT_ONCE = 16
"""Files whose content is put on the disk at the same time: one commit of the file system then serves many of them."""

TRAIN_FILE, VALIDATION_FILE, WARM_START_FILE = "train.parquet", "validation.parquet", "warm_start.jsonl"
"""The files of a task that has a tiny model."""

_LEFTOVER = re.compile(r"(?P<process>\d+)(?P<unique>-[0-9a-f]{8})?")
"""What follows PARTIAL: the writer's process; without the second part, from a version that used no lock."""


@contextmanager
def _partial(path: Path, folder: bool) -> Iterator[Path]:
    """A new temporary sibling of `path`, a folder or an empty file, locked while the block runs and removed after it.

    A sibling, because os.replace is only atomic within one file system. Leftovers of killed writers are removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    while True:
        partial = path.with_name(f".{path.name}{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}")
        if folder:
            partial.mkdir()
        try:
            descriptor = os.open(partial, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:
            continue  # as below
        _lock(descriptor, wait=True)
        if partial.exists():
            break
        os.close(descriptor)  # another process took it for a leftover before it was locked
    try:
        yield partial
    finally:
        _delete(partial)
        os.close(descriptor)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it replaces `path`, on an exception it is removed."""
    path = Path(path)
    with _partial(path, folder=False) as partial:
        yield partial
        on_disk(partial)
        os.replace(partial, path)


@contextmanager
def building_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, to fill, `on_disk` and rename; it is removed if it was not renamed."""
    with _partial(Path(path), folder=True) as partial:
        yield partial


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it becomes `path`, on an exception it is removed.

    Raises:
        FileExistsError: `path` exists, before or after the folder was filled. Nothing is overwritten.
    """
    path = Path(path)
    _refuse_existing(path)
    with building_directory(path) as partial:
        yield partial
        on_disk(partial)
        _refuse_existing(path)
        os.rename(partial, path)


def on_disk(path: str | Path) -> None:
    """Return when a file, or a folder with all that is in it, would survive a power failure."""
    places = [str(path)]
    for place, folders, names in os.walk(path):
        places += [os.path.join(place, name) for name in (*folders, *names)]
    places = [place for place in places if not os.path.islink(place)]
    with ThreadPoolExecutor(min(len(places), AT_ONCE)) as pool:
        list(pool.map(_sync, places))


def _sync(place: str) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do it for a folder
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(path: str | Path) -> list[Path]:
    """Remove what killed writers of `path` left next to it, and nothing of a living one; returns what was removed."""
    path = Path(path)
    start, removed = f".{path.name}{PARTIAL}", []
    for name in os.listdir(path.parent):
        match = _LEFTOVER.fullmatch(name.removeprefix(start)) if name.startswith(start) else None
        partial = path.with_name(name)
        if match is None or partial.is_symlink():
            continue
        if match["unique"] is None and Path("/proc", match["process"]).exists():
            continue
        try:
            descriptor = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # its writer has just finished
        if _lock(descriptor, wait=False):
            _delete(partial)
            removed.append(partial)
        os.close(descriptor)
    return removed


def _lock(descriptor: int, wait: bool) -> bool:
    """Lock an open file or folder; returns whether it is now locked.

    It is not if another process has locked it, or on a file system without such locks (NFS has none for folders): then
    no leftovers are recognised there, and none are removed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        return False
    return True


def _delete(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path} already exists; remove it, or choose another folder")
