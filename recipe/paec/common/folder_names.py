"""Which names and paths a folder of this recipe may have."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

from recipe.paec.common.repository import IS_CHECKOUT, REPOSITORY

LONGEST_NAME = 200
"""Longest folder name in bytes; file systems allow 255, and logs and tables are named after runs."""
RESERVED = ("curriculum", "evaluation", "multirun", "slurm")
"""Folders next to the runs that are not runs."""
_PLACES = {"run.name": "run.root sets its parent folder", "name": "output sets another place"}
"""Key of a name -> how to choose where the folder is."""


def name_error(key: str, name: Any) -> str | None:
    """Why the value of the configuration key `key` is not the name of one folder, as a sentence with the remedy."""
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        return f"{key}={name} must be the name of one folder: correct it, or leave {key} out"
    text = str(name)
    if not text.strip():
        return f"{key}={text!r} is empty (an unset shell variable?): give the name of one folder, or leave {key} out"
    problem = None
    if "/" in text or "\\" in text:
        place = _PLACES.get(key)
        problem = "must be the name of one folder, without a separator" + (f" ({place})" if place else "")
    elif text in (".", "..") or text[0] in ".-~":
        problem = "must not begin with a dot, a dash or ~"
    elif text != text.strip():
        problem = "begins or ends with a space"
    elif any(unicodedata.category(c)[0] == "C" for c in text):
        problem = "contains an unprintable character"
    elif len(text.encode()) > LONGEST_NAME:
        problem = f"has {len(text.encode())} bytes, more than the limit of {LONGEST_NAME}"
    elif text in RESERVED:
        problem = f"is reserved ({', '.join(RESERVED)})"
    return problem and f"{key}={text!a} {problem}: choose another name"


def path_error(key: str, value: Any) -> str | None:
    """Why the value of the configuration key `key` cannot be the path of a folder, regardless of what exists there."""
    if value is None or isinstance(value, bool) or not isinstance(value, str | int | float):
        return f"{key}={value} must be the path of a folder: correct it, or leave {key} out"
    text = str(value)
    if not text.strip():
        return f"{key}={text!r} is empty (an unset shell variable?): give the path of a folder, or leave {key} out"
    if any(unicodedata.category(c)[0] == "C" for c in text):
        return f"{key}={text!a} contains an unprintable character: give another path"
    try:
        path = Path(os.path.abspath(Path(text).expanduser()))
    except RuntimeError:
        return f"{key}={text}: this user does not exist: give the path of a folder"
    if str(path) == path.anchor:
        return f"{key}={text} is the root of the file system (an unset shell variable?): choose a folder below it"
    above = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not above.is_dir():
        what = "a broken symbolic link" if above.is_symlink() else "a file"
        return f"{key}={text}: {above} is {what}: give the path of a folder"
    return None


def run_errors(root: Any, name: Any, directory: Any) -> list[str]:
    """What is wrong with the names and places of a run (run.root, run.name, run.directory), whatever exists there."""
    errors = [path_error("run.root", root), name_error("run.name", name)]
    if any(errors):
        return [problem for problem in errors if problem]
    if problem := path_error("run.directory", directory):
        return [problem]
    place, above = _real(directory), _real(root)
    if place == above or place in above.parents:
        return [f"run.directory={directory} contains run.root={root}, the folder of all runs: {_DIRECTORY}"]
    return [f"run.directory={directory}: {reason}: {_DIRECTORY}"] if (reason := protected(place)) else []


_DIRECTORY = "leave run.directory out, or choose a folder for this run only"


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(Path(str(path)).expanduser()))


def protected(place: Path) -> str | None:
    """Why no folder of the recipe can be at `place`, None if one can."""
    home = _real(os.path.expanduser("~"))  # "~" itself if there is none
    ours = "this repository" if IS_CHECKOUT else "where this recipe is installed"
    for folder, what in ((REPOSITORY, ours), (home, "your home folder")):
        if place == folder:
            return f"it is {what}"
        if place in folder.parents:
            return f"it contains {what}"
    return None
