"""The doctor's checks of a node's folders: shared memory, scratch, write access."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from recipe.paec.common.console import GIB, gib
from recipe.paec.common.model_files import model_folder
from recipe.paec.config.data_files import data_files
from recipe.paec.doctor.node_memory import free_memory
from recipe.paec.doctor.report import Check

SHM = Path("/dev/shm")
QUEUES, NCCL = 0.125 * GIB, 1.0 * GIB
"""Bytes of /dev/shm for vLLM's message queues, and with GPUs (NCCL's guide recommends this much)."""
OBJECT_STORE = 0.3
"""Share of the free memory that Ray gives its object store, in /dev/shm where that is large enough."""
OBJECT_STORE_CAP = 10e9
"""Size of the object store in bytes beyond which Ray accepts what /dev/shm has."""
SEGMENTS = ("psm_*", "verl_weights_*")
"""Shared memory of Python's (vLLM's) queues and of the weight transfer; a killed process leaves them behind."""
SCRATCH = 2 * GIB
"""Free bytes needed where Ray keeps logs, sockets and objects that do not fit its object store."""
RAY_FULL = 0.95
"""Used share of a file system above which Ray stores nothing there (RAY_local_fs_capacity_threshold)."""


def leftover_segments(folder: Path = SHM) -> list[Path]:
    """Our segments in shared memory that no process has mapped, at least a minute old."""
    found: set[str] = set()
    for name in os.listdir(folder):
        if any(fnmatch.fnmatch(name, pattern) for pattern in SEGMENTS):
            with suppress(FileNotFoundError):  # deleted since it was listed
                about = (folder / name).stat()
                if about.st_uid == os.geteuid() and time.time() - about.st_mtime > 60:
                    found.add(str(folder / name))
    for maps in Path("/proc").glob("[0-9]*/maps") if found else ():
        try:
            found -= set(re.findall(rf"{folder}/\S+", maps.read_text(encoding="utf-8", errors="replace")))
        except OSError:
            continue  # it has exited, or belongs to another user
    return [Path(name) for name in sorted(found)]


def shared_memory(config: DictConfig) -> Check:
    """/dev/shm against the needs of the weight transfer, vLLM and NCCL; and what killed processes have left in it."""
    free = shutil.disk_usage(SHM).free
    # With GPUs the weights travel from one to the other.
    bucket = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20
    need = NCCL if config.cluster.platform == "cuda" else QUEUES + config.cluster.gpus_per_node * bucket
    errors, notes = [], []
    segments = leftover_segments()
    advice = ""
    if segments:
        size = 0
        for segment in segments:
            with suppress(FileNotFoundError):
                size += segment.stat().st_blocks * 512
        names = ", ".join(segment.name for segment in segments[:3]) + (", ..." if segments[3:] else "")
        advice = (
            f"{len(segments)} segment(s) left by killed runs take {gib(size)} of {SHM} ({names}), and no process uses "
            "them: delete them with rm"
        )
    if free < need:
        errors.append(
            f"shared memory: {gib(free)} free in {SHM}, {gib(need)} needed: make it larger (mount -o "
            f"remount,size=16g {SHM}; docker run --shm-size=16g)" + (f"; {advice}" if advice else "")
        )
    elif advice:
        notes.append(advice)
    store = min(OBJECT_STORE * free_memory(), OBJECT_STORE_CAP)
    if need <= free < store and config.cluster.ray_address is None:
        notes.append(
            f"shared memory: {gib(free)} free in {SHM}, but Ray needs {gib(store)} for its object store and will use a "
            "slower folder on disk: make it larger (docker run --shm-size=16g)"
        )
    return Check("shared memory", f"{gib(free)} free, {gib(need)} needed", tuple(errors), tuple(notes))


def scratch_folder(config: DictConfig) -> Path:
    """Where Ray's temporary folder is created."""
    names = ("RAY_TMPDIR", "TMPDIR") if config.cluster.ray_address is None else ("PAEC_TMP", "RAY_TMPDIR", "TMPDIR")
    return Path(next((os.environ[name] for name in names if os.environ.get(name)), "/tmp"))


def scratch(config: DictConfig) -> Check:
    """Space in the folder of Ray's temporary files."""
    folder = scratch_folder(config)
    knob = "RAY_TMPDIR" if config.cluster.ray_address is None else "PAEC_TMP"
    if not folder.is_dir():
        return Check(
            "Ray's files",
            str(folder),
            (f"{folder}: the folder for Ray's files does not exist: set {knob} to another one",),
        )
    usage, most = shutil.disk_usage(folder), float(os.environ.get("RAY_local_fs_capacity_threshold", RAY_FULL))
    full = 1 - usage.free / usage.total
    errors = []
    if full > most:
        errors.append(
            f"{folder}: its file system is {full:.0%} full, and Ray stores nothing there above {most:.0%}: free "
            f"some space, or set {knob} to a folder elsewhere"
        )
    elif usage.free < SCRATCH:
        errors.append(
            f"{folder}: {gib(usage.free)} free for Ray's logs and objects, {gib(SCRATCH)} needed: free some space, or "
            f"set {knob} to a folder elsewhere"
        )
    return Check("Ray's files", f"{folder}, {gib(usage.free)} free, {full:.0%} full", tuple(errors))


def existing(path: Path) -> Path:
    """The path, or the closest existing folder above it."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def unwritable(folder: Path) -> str | None:
    """Why no file can be written in `folder`, None if the test file could be written (it is deleted again)."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".paec-doctor-", dir=folder) as stream:
            stream.write(b"x" * 2**16)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.strerror
    return None


def write_access(config: DictConfig) -> Check:
    """Writes and deletes a test file where the run and its checkpoints will be."""
    errors = []
    places: dict[Path, str] = {}
    for folder in (config.run.directory, config.trainer.default_local_dir):
        places.setdefault(existing(Path(folder)), folder)
    for place, folder in places.items():
        if reason := unwritable(place):
            errors.append(f"{folder}: {place} is not writable ({reason}): set run.root to a writable folder")
    return Check("write access", ", ".join(map(str, places)), tuple(errors))


def files_here(config: DictConfig) -> list[str]:
    """Of the run's model and data files, those on this node."""
    files = [file for of_key in data_files(config).values() for file in of_key]
    found = [file for file in files if Path(file).expanduser().is_file()]
    return found if model_folder(config.model.path) is None else [config.model.path, *found]


def same_files(config: DictConfig, expected: Sequence[str]) -> Check:
    """Model and data on another node than the one where they were checked, which has the `expected` ones.

    What that node lacks too is created by the run, or is an error of its own check.
    """
    here = files_here(config)
    errors = tuple(
        f"{name} is not on node {socket.gethostname()}: model and data must be at the same paths on all nodes"
        for name in expected
        if name not in here
    )
    return Check("files", "model and data exist" if expected else "model and data do not exist yet", errors)
