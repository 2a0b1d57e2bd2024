"""Delete from a folder what this project has written there, and nothing else.

Patterns describe what it has written, one for each kind of file: paths below the folder in which `*` means any part of
a name, `#` an integer, and `**` at the end everything below. Symbolic links match no pattern: they
are neither deleted nor followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_TOKENS = {"*": "[^/]*", "#": "[0-9]+"}


@dataclass(frozen=True)
class Contents:
    """Everything below a folder, as sorted paths relative to it."""

    own: list[str]
    """Files that match a pattern."""
    links: list[str]
    """Symbolic links where a pattern expects a file or a folder."""
    foreign: list[str]
    """All other files and links; a folder that no pattern leads into represents its contents, with "/" at its end."""


@lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What a file's path must match, and what a folder's must."""
    files, folders = [], []
    for pattern in dict.fromkeys(patterns):
        everything = pattern.endswith("/**") or pattern == "**"
        parts = ["".join(_TOKENS.get(c, re.escape(c)) for c in part) for part in pattern.split("/")]
        above = parts[:-1]
        folders += ["/".join(above[: depth + 1]) for depth in range(len(above))]
        if everything:
            files.append("/".join([*above, ".+"]))
            folders.append(files[-1])
        else:
            files.append("/".join(parts))
    # (?!) matches nothing, as no pattern does.
    return tuple(re.compile("|".join(dict.fromkeys(found)) or "(?!)", re.DOTALL) for found in (files, folders))


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a file at `path` (relative, "/" between its parts) is one of those that the patterns describe."""
    return _compiled(tuple(patterns))[0].fullmatch(path) is not None


def leads_to(path: str, patterns: Iterable[str]) -> bool:
    """Whether the patterns describe anything below a folder at `path`."""
    return _compiled(tuple(patterns))[1].fullmatch(path) is not None


def contents(folder: Path, patterns: Sequence[str]) -> Contents:
    """The contents of `folder`, by `patterns`; no link is followed out of it."""
    own, links, foreign, patterns = [], [], [], tuple(patterns)
    folder = Path(os.path.realpath(folder))
    for place, names, files in os.walk(folder):
        below = os.path.relpath(place, folder).replace(os.sep, "/") + "/" if place != str(folder) else ""
        for name in names + files:
            path = below + name
            expected = matches(path, patterns), leads_to(path, patterns)
            if os.path.islink(os.path.join(place, name)):
                (links if any(expected) else foreign).append(path)
            elif name in files:
                (own if expected[0] else foreign).append(path)
            elif not expected[1]:
                foreign.append(path + "/")
        names[:] = [name for name in names if leads_to(below + name, patterns)]  # os.walk goes into these
    return Contents(sorted(own), sorted(links), sorted(foreign))


def remove(folder: Path, patterns: Sequence[str]) -> list[str]:
    """Delete the files below `folder` that match a pattern, then the folders of the patterns that are empty.

    Returns:
        The deleted files, relative to `folder`, sorted. `folder` itself stays.
    """
    removed, folder, patterns = [], Path(os.path.realpath(folder)), tuple(patterns)
    # By descriptors of the folders, so that a folder that is replaced by a link in between is not followed either.
    for place, names, files, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
        below = os.path.relpath(place, folder).replace(os.sep, "/") + "/" if place != str(folder) else ""
        for name in files:
            if not matches(below + name, patterns):
                continue
            if not stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=descriptor)
                removed.append(below + name)
        for name in names:
            if not leads_to(below + name, patterns):
                continue
            if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                if not os.listdir(os.path.join(place, name)):
                    os.rmdir(name, dir_fd=descriptor)
    return sorted(removed)
