"""The doctor's checks of a node's limits: files, threads, CPUs, interfaces."""

from __future__ import annotations

import math
import os
import resource
import socket
from pathlib import Path

import psutil
from omegaconf import DictConfig

from recipe.paec.common.console import gib
from recipe.paec.common.ray_access import counted_cpus
from recipe.paec.doctor.cgroup import cgroup_room
from recipe.paec.doctor.report import Check

FILES_PER_NODE, FILES = 4096, 65536
"""File descriptors: Ray warns below the first, and its guide asks for the second for large clusters."""
THREADS, THREADS_PER_WORKER = 500, 500
"""Processes and threads of a run: a base, and for every GPU; 637 with one in the quick start (docs/doctor.md)."""
COLOCATED = 3
"""CPUs that verl reserves in Ray for every GPU (ResourcePoolManager.max_colocate_count)."""
RAY_ACTORS = 2
"""CPUs for TransferQueue's controller, and for actors such as vLLM's servers, which need one free for their start."""


def limits(config: DictConfig) -> Check:
    """File descriptors, processes, CPUs and, for RDMA, locked memory."""
    errors = []
    cluster = config.cluster
    soft, hard = (_limit(value) for value in resource.getrlimit(resource.RLIMIT_NOFILE))
    files = max(soft, min(hard, FILES))  # Ray raises its own soft limit up to this
    need = min(FILES_PER_NODE * cluster.nodes, FILES)
    if files < need:
        errors.append(
            f"open files: the limit is {files:.0f}, Ray needs {need}: run ulimit -n {need} in the shell that starts "
            "this, or have an administrator raise the hard limit (limits.conf; LimitNOFILE of slurmd)"
        )
    room = min(_limit(resource.getrlimit(resource.RLIMIT_NPROC)[0]) - _own_threads(), _cgroup_processes())
    threads = THREADS + THREADS_PER_WORKER * cluster.gpus_per_node
    if room < threads:
        errors.append(
            f"processes: {room:.0f} more processes and threads are allowed, about {threads} needed: run ulimit -u "
            "unlimited, or raise the container's limit (docker run --pids-limit)"
        )
    locked = _limit(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
    if cluster.platform == "cuda" and cluster.nodes > 1 and Path("/sys/class/infiniband").is_dir():
        if locked < math.inf:
            errors.append(
                f"locked memory: the limit is {gib(locked)}, InfiniBand needs unlimited: run ulimit -l unlimited, or "
                "set memlock in limits.conf (LimitMEMLOCK of slurmd)"
            )
    found = f"{files:.0f} open files, {'any number of' if room == math.inf else f'{room:.0f} more'} processes"
    return Check("limits", found, tuple(errors))


def _limit(value: int) -> float:
    return math.inf if value == resource.RLIM_INFINITY else value


def _own_threads() -> int:
    if os.geteuid() == 0:
        return 0  # the limit does not bind root
    own = (process.info for process in psutil.process_iter(["uids", "num_threads"]))
    return sum(info["num_threads"] or 0 for info in own if info["uids"] and info["uids"].real == os.getuid())


def _cgroup_processes() -> float:
    return cgroup_room("pids", "pids.max", "pids.current", "pids.max", "pids.current")


def cpus(config: DictConfig) -> Check:
    """CPUs that a Ray started here will offer, against what verl's workers reserve: with too few, the run hangs."""
    here = os.cpu_count() or 1
    offered = config.cluster.num_cpus or counted_cpus()
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    gpus = config.cluster.gpus_per_node + config.cluster.rollout_nodes * config.cluster.rollout_gpus_per_node
    need = COLOCATED * gpus + units + RAY_ACTORS
    errors = ()
    if offered < need:
        errors = (
            f"CPUs: Ray would offer {offered}, the run reserves {need} ({COLOCATED} for every GPU, {units} for the "
            f"queue's storage, {RAY_ACTORS} for its controllers) and would hang: set cluster.num_cpus={need}",
        )
    told = f"Ray is told {offered} (cluster.num_cpus)" if config.cluster.num_cpus else f"Ray counts {offered}"
    return Check("CPUs", f"this machine has {here}; {told}, of which the run's processes reserve {need}", errors)


def queue_cpus(config: DictConfig, nodes: int) -> int:
    """CPUs of each of the `nodes` of a Ray cluster that must be free besides those of its GPUs."""
    return -(-config.transfer_queue.backend.SimpleStorage.num_data_storage_units // nodes) + RAY_ACTORS


def has_room(nodes: list[dict], groups: list[int], others: int) -> bool:
    """Whether each group of GPUs has its place on one node of a Ray cluster, counting what is in use as free.

    Args:
        nodes: as `ray.nodes()` gives them.
        groups: number of GPUs of each group; verl reserves COLOCATED CPUs with every one.
        others: CPUs of every node that are not for GPUs.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    free = [[r.get("GPU", 0), r.get("CPU", 0) - others] for r in resources]
    for gpus in sorted(groups, reverse=True):
        fitting = [node for node in free if node[0] >= gpus and node[1] >= COLOCATED * gpus]
        if not fitting:
            return False
        node = min(fitting)
        node[:] = node[0] - gpus, node[1] - COLOCATED * gpus
    return True


def interfaces(config: DictConfig) -> Check:
    """The interfaces that gloo and NCCL are told to use; without one, the host name must resolve to this machine."""
    env, there = {**os.environ, **config.cluster.env}, psutil.net_if_addrs()
    errors, found = [], []
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        wanted = env.get(name, "")
        if wanted and not _matches(wanted, name, list(there)):
            errors.append(
                f"{name}={wanted}: this machine only has {', '.join(sorted(there))}: set it to the one that connects "
                "the nodes, or unset it"
            )
        elif wanted:
            found.append(f"{name}={wanted}")
    host = socket.gethostname()
    own = {entry.address.split("%")[0] for entries in there.values() for entry in entries}
    if "127.0.0.1" not in own:
        errors.append("there is no loopback interface with 127.0.0.1, which Ray needs: run ip link set lo up")
    if not env.get("GLOO_SOCKET_IFNAME"):
        remedy = f"add the right address of {host} to /etc/hosts, or set GLOO_SOCKET_IFNAME to the nodes' interface"
        try:
            addresses = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
        except socket.gaierror as error:
            addresses = set()
            errors.append(f"the host name {host} cannot be resolved ({error.strerror}), so gloo would hang: {remedy}")
        strange = {a for a in addresses if a not in own and not a.startswith("127.")}
        if addresses and strange == addresses:
            errors.append(
                f"the host name {host} resolves to {', '.join(sorted(strange))}, which is not an address of this "
                f"machine: gloo would hang: {remedy}"
            )
        if config.cluster.nodes > 1 and addresses and all(a.startswith("127.") or a == "::1" for a in addresses):
            errors.append(
                f"the host name {host} resolves to {', '.join(sorted(addresses))}, which other nodes cannot reach: "
                f"{remedy}"
            )
        found.append(f"{host} is {', '.join(sorted(addresses)) or 'unknown'}")
    return Check("network", "; ".join(found), tuple(errors))


def _matches(wanted: str, name: str, there: list[str]) -> bool:
    """NCCL takes prefixes, "=" for exact names and "^" for those not to use; gloo takes a list of names."""
    if name.startswith("GLOO"):
        return set(wanted.split(",")) <= set(there)
    exclude, wanted = wanted.startswith("^"), wanted.removeprefix("^")
    exact, wanted = wanted.startswith("="), wanted.removeprefix("=")
    entries = [entry.split(":")[0] for entry in wanted.split(",")]
    hit = [any(one == entry if exact else one.startswith(entry) for entry in entries) for one in there]
    return not all(hit) if exclude else any(hit)
