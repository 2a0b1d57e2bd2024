"""Which names and paths a folder of this recipe may have."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

from recipe.paec.common.repository import REPOSITORY

LONGEST_NAME = 200
"""Bytes of a folder's name; file systems take 255, and logs and tables are named after runs."""
RESERVED = ("curriculum", "evaluation", "multirun", "slurm")
"""Folders beside the runs that are none."""


def name_error(key: str, name: Any) -> str | None:
    """Why the value of the configuration key `key` is not the name of one folder, in a sentence with the remedy."""
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        return f"{key}={name}: give it one folder's name, or leave {key} out"
    text = str(name)
    if not text.strip():
        return f"{key}={text!r} is empty (an unset shell variable?): give it one folder's name, or leave {key} out"
    problem = None
    if "/" in text or "\\" in text:
        problem = "must be one folder's name, without a separator (run.root says where it lies)"
    elif text in (".", "..") or text[0] in ".-~":
        problem = "must not begin with a dot, a dash or ~"
    elif text != text.strip():
        problem = "begins or ends with a space"
    elif any(unicodedata.category(c)[0] == "C" for c in text):
        problem = "holds a character that cannot be shown"
    elif len(text.encode()) > LONGEST_NAME:
        problem = f"has {len(text.encode())} bytes, a folder's name here at most {LONGEST_NAME}"
    elif text in RESERVED:
        problem = f"is a folder beside the runs ({', '.join(RESERVED)})"
    return problem and f"{key}={text!a} {problem}: choose another name"


def path_error(key: str, value: Any) -> str | None:
    """Why the value of the configuration key `key` cannot be the path of a folder, whatever lies there."""
    if value is None or isinstance(value, bool) or not isinstance(value, str | int | float):
        return f"{key}={value}: give the path of a folder, or leave {key} out"
    text = str(value)
    if not text.strip():
        return f"{key}={text!r} is empty (an unset shell variable?): give the path of a folder, or leave {key} out"
    if any(unicodedata.category(c)[0] == "C" for c in text):
        return f"{key}={text!a} holds a character that cannot be shown: give another path"
    try:
        path = Path(os.path.abspath(Path(text).expanduser()))
    except RuntimeError:
        return f"{key}={text}: there is no such user: give the path of a folder"
    if str(path) == path.anchor:
        return f"{key}={text} is the root of the file system (an unset shell variable?): name a folder below it"
    above = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not above.is_dir():
        what = "a symbolic link that leads nowhere" if above.is_symlink() else "a file"
        return f"{key}={text}: {above} is {what}: give the path of a folder"
    return None


def run_errors(root: Any, name: Any, directory: Any) -> list[str]:
    """What is wrong with the names and places of a run (run.root, run.name, run.directory), whatever lies there."""
    errors = [path_error("run.root", root), name_error("run.name", name)]
    if any(errors):
        return [problem for problem in errors if problem]
    if problem := path_error("run.directory", directory):
        return [problem]
    place, above = _real(directory), _real(root)
    if place == above or place in above.parents:
        return [f"run.directory={directory} holds run.root={root}, where all runs lie: {_DIRECTORY}"]
    return [f"run.directory={directory}: {reason}: {_DIRECTORY}"] if (reason := protected(place)) else []


_DIRECTORY = "leave run.directory out, or name a folder for this run alone"


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(Path(str(path)).expanduser()))


def protected(place: Path) -> str | None:
    """Why no folder of the recipe can be at `place`, None if one can."""
    home = _real(os.path.expanduser("~"))  # itself where there is none
    for folder, what in ((REPOSITORY, "this repository"), (home, "your home folder")):
        if place == folder:
            return f"that is {what}"
        if place in folder.parents:
            return f"that folder holds {what}"
    return None
