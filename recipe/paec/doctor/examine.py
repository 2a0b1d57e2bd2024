"""All checks of a run, in the order in which they are printed."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from recipe.paec.common import folder_kinds, folders, versions
from recipe.paec.common.console import GIB, gib
from recipe.paec.common.errors import UserError
from recipe.paec.common.repository import OF_CHECKOUT
from recipe.paec.config import verl_rules
from recipe.paec.config.data_files import data_files
from recipe.paec.config.resolve import folder_mark
from recipe.paec.doctor import environment, node, node_folders, node_limits, node_memory
from recipe.paec.doctor.collective import Collective
from recipe.paec.doctor.inputs import data_errors, is_below, model_errors
from recipe.paec.doctor.node_folders import existing
from recipe.paec.doctor.report import Check, Report
from recipe.paec.plan import formulas, shapes
from recipe.paec.ray_node.addresses import host_of
from recipe.paec.run import checkpoints

OTHER_FILES = 1.0 * GIB
"""Bytes of a run directory apart from checkpoints and model: logs, rollouts, metrics."""
INODES = 1000
"""Minimum number of files that a run creates."""
CONNECT = 5.0
"""Seconds for a TCP connection to the Ray cluster."""


def examine(config: DictConfig) -> list[str]:
    """Print a line for every check of a resolved configuration that `rules.check_config` accepts; the errors.

    What is below `run.prepare_dir` may be missing if `run.prepare_command` will create it.
    """
    report, local = Report(), config.cluster.ray_address is None
    to_come = Path(config.run.prepare_dir) if config.run.prepare_command else None
    report.add(*basics(config))
    if notes := verl_rules.notes(config):
        report.add(Check("sampling", "training draws from a part of the vocabulary", notes=tuple(notes)))
    collective = None if report.errors else Collective(config)  # imports torch while the other checks run
    try:
        report.add(*inputs(config, to_come))
        report.add(run_directory(config), storage(config))
        if local:  # with a cluster, the collective checks its nodes
            report.add(*node.node_checks(config), node_limits.cpus(config))
        if config.cluster.platform == "cuda":
            report.add(environment.check_installed(config))
        if local and config.cluster.platform == "cuda":
            report.add(node_memory.gpu_memory(config, config.cluster.gpus_per_node))
        if not local:
            report.add(node_folders.write_access(config))
        if collective:
            report.add(*collective.result())
    finally:
        if collective:
            collective.end()
    return report.errors


def basics(config: DictConfig) -> list[Check]:
    """Versions, GPUs and Ray's address: without these the other checks cannot run. Only `cluster` is read."""
    cluster = config.cluster
    found = {name: version for name, version in versions.report().items() if version}
    stack = f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version}" for name, version in found.items())
    workers = f"{cluster.nodes} node(s) x {cluster.gpus_per_node} worker(s), {cluster.platform}"
    return [
        Check("versions", stack, tuple(environment.check_versions())),
        Check("cluster", workers, tuple(environment.check_cluster(config))),
        ray_address(config),
    ]


def inputs(config: DictConfig, to_come: Path | None) -> list[Check]:
    """Model, with its size, and data; what does not exist yet, but is below `to_come`, is not an error."""
    later = "created by the run (run.prepare_command)"
    path, count = config.model.path, shapes.parameter_count(config.model.path)
    found = f"{path}, {count / 1e6:.1f} M parameters" if count is not None else path
    if count is None and is_below(path, to_come):
        found += f", {later}"
    wrong, tokenizer = model_errors(config, to_come)
    shown = [
        f"{file}, {later}" if is_below(file, to_come) and not Path(file).expanduser().is_file() else file
        for files in data_files(config).values()
        for file in files
    ]
    return [
        Check("model", found, tuple(wrong)),
        Check("data", "; ".join(shown), tuple(data_errors(config, tokenizer, to_come))),
    ]


# ---- Ray -------------------------------------------------------------------------------------------------------------


def ray_address(config: DictConfig) -> Check:
    """Whether the cluster's address answers, or whether Ray can start here."""
    address, variable = config.cluster.ray_address, os.environ.get("RAY_ADDRESS")
    current = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    if address is None:
        errors = []
        if config.cluster.nodes > 1:
            errors.append(
                f"cluster.nodes={config.cluster.nodes}: several nodes need a running Ray cluster: start it "
                f"(launch/ray_head.sh, launch/slurm/paec.sbatch{OF_CHECKOUT}) and give its address with "
                "cluster.ray_address"
            )
        elif variable:
            errors.append(
                f"RAY_ADDRESS={variable} makes Ray join that cluster, but cluster.ray_address is null: unset it, or "
                "set cluster.ray_address to it"
            )
        elif current.is_file():
            errors.append(
                f"{current} makes Ray join {current.read_text(encoding='ascii').strip()}, but cluster.ray_address is "
                "null: stop that cluster (ray stop) or delete the file, or set cluster.ray_address to it"
            )
        return Check("Ray", "started by the run, on free ports", tuple(errors))
    found = address
    if address == "auto":
        found = variable or (current.read_text(encoding="ascii").strip() if current.is_file() else None)
        if found is None:
            return Check(
                "Ray",
                "no cluster",
                (
                    f"cluster.ray_address=auto: neither RAY_ADDRESS nor {current} names a cluster: start one "
                    f"(launch/ray_head.sh{OF_CHECKOUT}), or give its address HOST:PORT",
                ),
            )
    problem = unreachable(found)
    return Check("Ray", f"cluster at {found}", () if problem is None else (problem,))


def unreachable(address: str) -> str | None:
    """Why nothing answers at HOST:PORT, or None."""
    try:
        host = host_of(address)
        socket.create_connection((host, int(address.rpartition(":")[2])), timeout=CONNECT).close()
    except UserError as error:
        return f"cluster.ray_address={address}: {error}"
    except OSError as error:
        return (
            f"cluster.ray_address={address}: nothing answers there ({error.strerror or error}): is Ray's head running "
            f"(launch/ray_head.sh{OF_CHECKOUT} prints its address), and can this machine reach it?"
        )
    return None


# ---- the run directory -----------------------------------------------------------------------------------------------


def run_directory(config: DictConfig) -> Check:
    """Whether the directory belongs to this run and is not in use, and which checkpoints it contains."""
    directory = Path(config.run.directory)
    problem = folders.error_of(directory, folder_kinds.RUN, folder_mark(config), config.run.fresh)
    errors = [problem] if problem else []
    if not errors and (directory / folder_kinds.LOCK).is_file():
        try:
            folders.lock(directory, folder_kinds.RUN).close()
        except UserError as error:
            errors = error.errors
    steps = [step for step, _ in checkpoints.steps(Path(config.trainer.default_local_dir))]
    found = f"{directory}, " + (f"checkpoint of step {steps[0]}" if steps else "no checkpoint yet")
    return Check("run directory", found, tuple(errors))


def saves_to_come(config: DictConfig) -> int:
    """Checkpoints on disk at the same time: those kept, and the one being written."""
    every, total = config.trainer.save_freq, config.trainer.total_training_steps
    saves = -(-total // every) if every > 0 else 0
    return min(config.run.keep_checkpoints + config.run.keep_best + 1, saves)


def _bytes_of(folder: Path) -> int:
    """Bytes of the files in a folder, without those that are deleted meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.stat(os.path.join(place, name)).st_size
    return size


def storage(config: DictConfig) -> Check:
    """Disk space for the coming checkpoints, the exported model and the logs, on their file systems."""
    parameters = shapes.parameter_count(config.model.path)
    saves = saves_to_come(config)
    root, directory = Path(config.trainer.default_local_dir), Path(config.run.directory)
    each = formulas.checkpoint_bytes(config, parameters or 0)
    there = sum(_bytes_of(folder) for _, folder in checkpoints.steps(root))  # damaged ones are kept
    export = config.run.export * 4 * (parameters or 0)
    wanted: dict[int, tuple[Path, float]] = {}
    for folder, size in ((root, max(0, saves * each - there)), (directory, export + OTHER_FILES)):
        place = existing(folder)
        device = place.stat().st_dev
        wanted[device] = (place, size + (wanted[device][1] if device in wanted else 0))
    errors, found = [], []
    for place, need in wanted.values():
        system = os.statvfs(place)
        free = shutil.disk_usage(place).free
        found.append(f"{place} {gib(free)} free, {gib(need)} needed")
        if free < need:
            errors.append(
                f"disk: {gib(free)} free at {place}, {gib(need)} needed ({saves} checkpoint(s) of {gib(each)}, the "
                "exported model, logs): free some space, set run.root to a larger file system, or lower "
                "run.keep_checkpoints"
            )
        elif system.f_files and system.f_favail < INODES:
            errors.append(
                f"disk: the file system of {place} has inodes for {system.f_favail} more files, {INODES} needed: "
                "delete small files there, or set run.root to another"
            )
    size = f"{saves} checkpoint(s) of {gib(each)} at once" if parameters else "the model does not exist yet"
    return Check("disk", f"{'; '.join(found)} ({size})", tuple(errors))
