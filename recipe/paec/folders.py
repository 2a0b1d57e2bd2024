"""Folders of this recipe: their names, the mark that says whose they are, and how they are held and cleared.

A folder belongs to the recipe if it is marked (`MARK`, written when it is made), or has what folders had before there
were marks. What is deleted in it are the files of its kind, listed here, and nothing else: files of others stay, other
folders are refused, and nothing is deleted or written through a symbolic link.
"""

from __future__ import annotations

import fcntl
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import yaml

from data_prep.cleaning import Contents, contents, matches, remove
from recipe.paec.errors import UserError

MARK, LOCK = ".paec_folder.json", ".lock"
LONGEST_NAME = 200
"""Bytes of a folder's name; file systems take 255, and logs and tables are named after runs."""
RESERVED = ("curriculum", "evaluation", "multirun", "slurm")
"""Folders beside the runs that are none."""
REPOSITORY = Path(__file__).resolve().parents[2]
_LOGS = (".log", ".out", ".err")
"""Suffixes of files into which a shell or Slurm writes what a command prints, before the command can look."""


# ---- what is written where -------------------------------------------------------------------------------------------


def _whole(*names: str) -> tuple[str, ...]:
    """Files that appear by rename, and their temporary names (`write_json`, `atomic_write`)."""
    return tuple(p for name in names for p in (name, f".{name}.tmp", f".{name}.#.tmp", f".{name}.partial-*"))


def _below(folder: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{pattern}" for pattern in patterns)


def _role(name: str) -> tuple[str, ...]:
    shards = tuple(f"{part}_world_size_#_rank_#.pt" for part in ("model", "optim", "extra_state"))
    return _below(name, (*shards, "fsdp_config.json", "lora_train_meta.json", "lora_adapter/*", "huggingface/*"))


CHECKPOINT_STATE = "paec_state.json"
CHECKPOINT = (*_whole(CHECKPOINT_STATE), "data.pt", "transfer_queue/**", *_role("actor"), *_role("critic"))
"""Files of a checkpoint, `global_step_N`; patterns of `data_prep.cleaning`, as all below."""

EXPORT_RECORD = "paec_export.json"
EXPORTED = (
    *_whole(EXPORT_RECORD, "config.json"),
    *("README.md", "generation_config.json", "model.safetensors", "model-#-of-#.safetensors"),
    *("model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "normalizer.json", "chat_template.jinja"),
    *("chat_template.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
"""Files of an exported model, besides those that its EXPORT_RECORD lists."""


def _exported(name: str) -> tuple[str, ...]:
    """An export within another folder, and the remains of a killed one."""
    return tuple(p for folder in (name, f".{name}.tmp", f".{name}.partial-*") for p in _below(folder, EXPORTED))


_EVALUATION = (
    *_whole("evaluation.json", "generation.json", "samples.jsonl", "scores.json", "scores.md"),
    *("job.json", "journal.jsonl", "generation.log", "export.log", ".ray_token", *_exported("model")),
)
_CURVE = _whole("curve.json", "curve.png")
_STEPS = tuple(f"checkpoints/{name}" for name in ("global_step_#", "damaged_global_step_#", "damaged_global_step_#-#"))
_RUN = (
    *_whole("config.yaml", "versions.json", "metrics.jsonl", "failure.json"),
    *("heartbeat.json", "heartbeat.tmp", "stop", "train.log", "export.log", ".ray_token"),
    *("rollouts/#.jsonl", "validation/#.jsonl", "checkpoints/latest_checkpointed_iteration.txt"),
    *(path for step in _STEPS for path in _below(step, CHECKPOINT)),
    *_exported("huggingface"),
    *_below("evaluation/*", _CURVE),
    *_below("evaluation/*/step_#", (*_EVALUATION, MARK, LOCK)),
)
_GRID = (*_whole("table.md", "table.json", "curves.png"), "*-seed#.log", "slurm-#_#.out", "slurm-#-table.out")


# ---- folders from before there were marks ----------------------------------------------------------------------------


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _older_run(folder: Path) -> dict[str, Any] | None:
    """By its resolved configuration, with the identity that only this recipe puts there."""
    try:
        config = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        if not isinstance(config["identity"], dict):
            return None
        return {"experiment": str(config["run"]["experiment"]), "name": str(config["run"]["name"])}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None


def _older_by(name: str, *fields: set[str]) -> Callable[[Path], dict[str, Any] | None]:
    """By a JSON file with exactly these fields, or those."""

    def find(folder: Path) -> dict[str, Any] | None:
        found = _read_json(folder / name)
        return {} if isinstance(found, dict) and found.keys() in fields else None

    return find


_SAMPLED = {"model", "seed", "chat_template", "context_length", "dtype"}


# ---- kinds -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """One kind of folder."""

    name: str
    """In the mark."""
    noun: str
    """In errors."""
    files: tuple[str, ...]
    """All that is written into it, as patterns of `data_prep.cleaning`."""
    elsewhere: str
    """How another folder is chosen, in errors."""
    fresh: str
    """What asks for clearing it, in errors."""
    older: Callable[[Path], dict[str, Any] | None]
    """What the mark of an unmarked folder of this kind would say, None for another folder."""
    first: tuple[str, ...] = ()
    """Those of `files` that go first, so that what is left by a kill counts as unfinished."""


RUN = Kind(
    "run",
    "run",
    _RUN,
    "choose another run.name",
    "run.fresh=true",
    _older_run,
    first=(*(f"{step}/{CHECKPOINT_STATE}" for step in _STEPS), f"huggingface/{EXPORT_RECORD}"),
)
EVALUATION = Kind(
    "evaluation",
    "evaluation",
    _EVALUATION,
    "name an empty or a new folder with output=...",
    "fresh=true",
    _older_by("evaluation.json", _SAMPLED | {"protocol", "benchmarks"}, {"samples", "benchmarks"}),
    first=("scores.json",),
)
CURRICULUM = replace(
    EVALUATION,
    name="curriculum",
    noun="scoring of prompts",
    elsewhere="set run.root to another folder",
    fresh="run.fresh=true",
    older=_older_by("evaluation.json", _SAMPLED | {"sampling", "prompts"}),
)
GRID = Kind(
    "grid",
    "table of a grid",
    _GRID,
    "choose another GRID",
    "",
    _older_by("table.json", {"about", "level", "methods", "runs", "remarks"}),
)
KINDS = {kind.name: kind for kind in (RUN, EVALUATION, CURRICULUM, GRID)}


def mark_of(folder: Path) -> dict[str, Any] | None:
    """`{"kind": ..., ...}`: what a folder's mark says, or would say; None if the folder is not the recipe's."""
    found = _read_json(folder / MARK)
    if isinstance(found, dict) and found.get("kind") in KINDS:
        return found
    for kind in KINDS.values():
        older = kind.older(folder)
        if older is not None:
            return {"kind": kind.name, **older}
    return None


def exported_files(folder: Path) -> tuple[str, ...]:
    """Patterns of the files of an exported model: those that its record lists, and those of any export."""
    return (*EXPORTED, *_listed(folder / EXPORT_RECORD))


def checkpoint_files(folder: Path) -> tuple[str, ...]:
    """Patterns of the files of a checkpoint: those that its state lists, and those of any checkpoint."""
    return (*CHECKPOINT, *_listed(folder / CHECKPOINT_STATE))


def _listed(record: Path) -> list[str]:
    found = _read_json(record)
    names = found.get("files") if isinstance(found, dict) else None
    return [name for name in names or () if isinstance(name, str) and not set("*#") & set(name)]


def _files(folder: Path, kind: Kind) -> tuple[str, ...]:
    """The patterns of a kind, and the files that the records within a folder list."""
    places = [(name, exported_files) for name in ("huggingface" if kind is RUN else "model",)]
    if kind is RUN:
        states = (folder / "checkpoints").glob(f"*global_step_*/{CHECKPOINT_STATE}")
        own = [path for state in states if matches(path := str(state.parent.relative_to(folder)), _STEPS)]
        places += [(path, checkpoint_files) for path in own]
    return (*kind.files, *(p for place, files in places for p in _below(place, files(folder / place))))


def inside(folder: Path, kind: Kind) -> Contents:
    """What a folder holds: the files of its kind, links in their places, files of others."""
    found = contents(folder, (*_files(folder, kind), MARK, *_whole(MARK), LOCK))
    return replace(found, own=[path for path in found.own if not matches(path, (*_whole(MARK), LOCK))])


# ---- names and places ------------------------------------------------------------------------------------------------


def name_problem(key: str, name: Any) -> str | None:
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


def path_problem(key: str, value: Any) -> str | None:
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


def run_problems(root: Any, name: Any, directory: Any) -> list[str]:
    """What is wrong with the names and places of a run (run.root, run.name, run.directory), whatever lies there."""
    problems = [path_problem("run.root", root), name_problem("run.name", name)]
    if any(problems):
        return [problem for problem in problems if problem]
    if problem := path_problem("run.directory", directory):
        return [problem]
    place, above = _real(directory), _real(root)
    if place == above or place in above.parents:
        return [f"run.directory={directory} holds run.root={root}, where all runs lie: {_DIRECTORY}"]
    return [f"run.directory={directory}: {reason}: {_DIRECTORY}"] if (reason := _protected(place)) else []


_DIRECTORY = "leave run.directory out, or name a folder for this run alone"


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(Path(str(path)).expanduser()))


def _protected(place: Path) -> str | None:
    """Why no folder of the recipe can be at `place`, None if one can."""
    home = _real(os.path.expanduser("~"))  # itself where there is none
    for folder, what in ((REPOSITORY, "this repository"), (home, "your home folder")):
        if place == folder:
            return f"that is {what}"
        if place in folder.parents:
            return f"that folder holds {what}"
    return None


# ---- holding and clearing --------------------------------------------------------------------------------------------


def problem_of(folder: Path, kind: Kind, about: Mapping[str, Any], fresh: bool) -> str | None:
    """Why `folder` cannot be used as a folder of this kind, None if it can; touches nothing.

    Args:
        about: what the mark must say besides the kind: of a run, its experiment and name.
        fresh: whether it is to be cleared first.
    """
    if not os.path.lexists(folder):
        return _within(folder, kind)
    if not folder.is_dir():
        return f"{folder} is no folder: {kind.elsewhere}"
    if reason := _protected(folder.resolve()):
        return f"{folder}: {reason}: {kind.elsewhere}"
    if folder.is_symlink() and fresh:
        return (
            f"{folder} is a symbolic link, behind which {kind.fresh} deletes nothing: {kind.elsewhere}, or clear "
            f"{folder.resolve()} by hand"
        )
    mark, held = mark_of(folder), inside(folder, kind)
    if held.links:
        return (
            f"{folder / held.links[0]} is a symbolic link, and nothing is written or deleted behind one: replace it by "
            f"what it leads to, or {kind.elsewhere}"
        )
    if mark is None:
        strangers = [
            entry.name
            for entry in sorted(folder.iterdir())
            if not matches(entry.name, (*_whole(MARK), LOCK)) and not (entry.is_file() and entry.suffix in _LOGS)
        ]
        if strangers:
            return f"{folder} holds {strangers[0]} and no {kind.noun}: {kind.elsewhere}"
        return _within(folder, kind)
    if mark["kind"] != kind.name:
        return f"{folder} holds a {KINDS[mark['kind']].noun} and no {kind.noun}: {kind.elsewhere}"
    for key, wanted in about.items():
        if mark.get(key) != wanted:
            return (
                f"{folder} holds another {kind.noun}: its {key} is {mark.get(key)!r}, this one's {wanted!r}: "
                f"{kind.elsewhere}, or delete that folder by hand"
            )
    return None


def _within(folder: Path, kind: Kind) -> str | None:
    """A run does not lie in another run's folder."""
    if kind is RUN:
        for above in folder.resolve().parents:
            if (mark := mark_of(above)) is not None:
                noun = KINDS[mark["kind"]].noun
                return f"{folder} would lie in {above}, the folder of a {noun}: set run.root to a folder beside it"
    return None


def lock(directory: Path) -> IO[str]:
    """Hold the run directory for this process; UserError if another run does."""
    directory.mkdir(parents=True, exist_ok=True)
    stream = os.fdopen(os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "w", encoding="ascii")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise UserError(f"{directory} is in use by another run: wait for it, or choose another run.name") from None
    return stream


def take(folder: Path, kind: Kind, about: Mapping[str, Any], fresh: bool, say: Callable[[str], None]) -> None:
    """Mark a folder that is held (`lock`); with `fresh`, delete in it what is of its kind first, and say what.

    Raises:
        UserError: of `problem_of`; nothing was deleted.
    """
    if problem := problem_of(folder, kind, about, fresh):
        raise UserError(problem)
    mark = {"kind": kind.name, **about}
    if _read_json(folder / MARK) != mark:
        temporary = folder / f".{MARK}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(mark, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(temporary, folder / MARK)
    if fresh and (sentence := to_be_cleared(folder, kind)):
        say(f"{kind.fresh}: {sentence}")
        patterns = _files(folder, kind)
        remove(folder, kind.first)
        remove(folder, patterns)


def to_be_cleared(folder: Path, kind: Kind) -> str | None:
    """`deletes ... in FOLDER; leaves ...`: what clearing does; None where there is nothing to delete."""
    if not folder.is_dir():
        return None
    held = inside(folder, kind)
    if not held.own:
        return None
    files = Counter(path.partition("/")[0] + "/" * ("/" in path) for path in held.own)
    parts = [f"{name} ({count} files)" if name.endswith("/") else name for name, count in files.items()]
    left = f"; leaves {', '.join(held.foreign)}" if held.foreign else ""
    return f"deletes the {kind.noun} in {folder}: {', '.join(parts)}{left}"
