"""How folders of this recipe are checked, locked, marked and cleared.

Only the files that recipe.paec.common.folder_kinds lists for a kind are deleted: files of others stay, other folders
are refused, and nothing is deleted or written through a symbolic link.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from data_prep.cleaning import matches, remove
from recipe.paec.common.console import NO_LOCKS
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import write_json
from recipe.paec.common.folder_kinds import (
    KINDS,
    LOCK,
    MARK,
    RUN,
    Kind,
    files_of,
    inside,
    mark_of,
    read_json_or_none,
    whole,
)
from recipe.paec.common.folder_names import protected
from recipe.paec.common.secrets import HIDDEN, scrub

_LOGS = (".log", ".out", ".err")
"""Suffixes of files into which a shell or Slurm redirects a command's output before the command starts."""


def error_of(folder: Path, kind: Kind, about: Mapping[str, Any], fresh: bool) -> str | None:
    """Why `folder` cannot be used as a folder of this kind, None if it can; touches nothing.

    Args:
        about: what the mark must say in addition to the kind: for a run, its experiment and name.
        fresh: whether it will be cleared first.
    """
    if not os.path.lexists(folder):
        return _within(folder, kind)
    if not folder.is_dir():
        return f"{folder} is not a folder: {kind.elsewhere}"
    if reason := protected(folder.resolve()):
        return f"{folder}: {reason}: {kind.elsewhere}"
    if folder.is_symlink() and fresh:
        return (
            f"{folder} is a symbolic link, and {kind.fresh} deletes nothing through links: {kind.elsewhere}, or clear "
            f"{folder.resolve()} by hand"
        )
    mark, held = mark_of(folder), inside(folder, kind)
    if held.links:
        return (
            f"{folder / held.links[0]} is a symbolic link, and nothing is written or deleted through links: replace "
            f"it with its target, or {kind.elsewhere}"
        )
    if mark is None:
        strangers = [
            entry.name
            for entry in sorted(folder.iterdir())
            if not matches(entry.name, (*whole(MARK), LOCK)) and not (entry.is_file() and entry.suffix in _LOGS)
        ]
        if strangers:
            return f"{folder} contains {strangers[0]} but no {kind.noun}: {kind.elsewhere}"
        return _within(folder, kind)
    if mark["kind"] != kind.name:
        return f"{folder} contains {KINDS[mark['kind']].noun} files, not {kind.noun} files: {kind.elsewhere}"
    for key, wanted in about.items():
        if mark.get(key) != wanted:
            return (
                f"{folder} belongs to another {kind.noun}: its {key} is {mark.get(key)!r}, but this command has "
                f"{wanted!r}: {kind.elsewhere}, or delete the folder by hand"
            )
    return None


def _within(folder: Path, kind: Kind) -> str | None:
    """Why a run cannot be at `folder`: it is inside another folder of this recipe."""
    if kind is RUN:
        for above in folder.resolve().parents:
            if (mark := mark_of(above)) is not None:
                noun = KINDS[mark["kind"]].noun
                return (
                    f"{folder} would be inside {above}, which contains {noun} files: set run.root to a folder outside "
                    "it"
                )
    return None


def lock(folder: Path, kind: Kind) -> IO[str]:
    """Hold a folder for this process until the stream is closed.

    Raises:
        UserError: another process holds it, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "w", encoding="ascii")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise UserError(f"{folder} is in use by another {kind.noun}: wait for it, or {kind.elsewhere}") from None
    except OSError as error:
        stream.close()
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(
            f"{folder}: its file system has no file locks ({error.strerror}): have it mounted with them (Lustre: the "
            "option flock; NFS: without nolock), or choose a folder on another file system (run.root=..., output=...)"
        ) from None
    return stream


def in_use(folder: Path) -> bool:
    """Whether another process of this machine holds a folder (`lock`); creates nothing."""
    try:
        with open(folder / LOCK, encoding="ascii") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def held(folder: Path, kind: Kind, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder (`lock`) while the block runs; at its end, secrets in its text files are redacted, with a note."""
    stream = lock(folder, kind)
    try:
        yield
    finally:
        for file in scrub(folder):
            say(f"note: {file} contained the value of a secret environment variable; it now says {HIDDEN} instead")
        stream.close()


def take(folder: Path, kind: Kind, about: Mapping[str, Any], fresh: bool, say: Callable[[str], None]) -> None:
    """Mark a folder that is held (`lock`); with `fresh`, first delete the files of its kind, and print which.

    Raises:
        UserError: of `error_of`; nothing was deleted.
    """
    if problem := error_of(folder, kind, about, fresh):
        raise UserError(problem)
    mark = {"kind": kind.name, **about}
    if read_json_or_none(folder / MARK) != mark:
        write_json(folder / MARK, mark)
    if fresh and (sentence := to_be_cleared(folder, kind)):
        say(f"{kind.fresh}: {sentence}")
        patterns = files_of(folder, kind)
        for pattern in kind.first:
            remove(folder, [pattern])
        remove(folder, [pattern for pattern in patterns if pattern not in kind.last])
        remove(folder, patterns)


def to_be_cleared(folder: Path, kind: Kind) -> str | None:
    """`deletes ... in FOLDER; leaves ...`: what clearing does; None if there is nothing to delete."""
    if not folder.is_dir():
        return None
    held = inside(folder, kind)
    if not held.own:
        return None
    files = Counter(first + slash for first, slash, _ in (path.partition("/") for path in held.own))
    parts = [f"{name} ({count} files)" if name.endswith("/") else name for name, count in files.items()]
    left = f"; leaves {', '.join(held.foreign)}" if held.foreign else ""
    return f"deletes the {kind.noun} in {folder}: {', '.join(parts)}{left}"
