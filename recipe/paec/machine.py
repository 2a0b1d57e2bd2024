"""What one node has, against what a run needs: memory, GPUs, shared memory, folders, limits, interfaces.

Every check is a function of the resolved configuration and looks at the node it runs on: the one where the command is
given or, for a Ray cluster, each of its nodes (recipe.paec.collective).
"""

from __future__ import annotations

import fnmatch
import math
import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from omegaconf import DictConfig

from recipe.paec import plan
from recipe.paec.checks import GIB, Check, gib
from recipe.paec.errors import UserError
from recipe.paec.model_files import model_folder

SHM, CGROUP = Path("/dev/shm"), Path("/sys/fs/cgroup")
MEMORY_SURE = 0.8
"""Share of the estimated memory below which a run is refused."""
QUEUES, NCCL = 0.125 * GIB, 1.0 * GIB
"""Bytes of /dev/shm for vLLM's message queues, and with GPUs (NCCL's own guide asks for so much)."""
OBJECT_STORE = 0.3
"""Share of the free memory that Ray gives its object store, in /dev/shm where that is large enough."""
OBJECT_STORE_CAP = 10e9
"""Bytes beyond which it is content with what /dev/shm has."""
SEGMENTS = ("psm_*", "verl_weights_*")
"""Shared memory of Python's (vLLM's) queues and of the weight transfer; a killed process leaves it behind."""
SCRATCH = 2 * GIB
"""Free bytes wanted where Ray keeps logs and sockets, and what its object store has no room for."""
RAY_FULL = 0.95
"""Share of a file system in use from which Ray refuses to store there (RAY_local_fs_capacity_threshold)."""
FILES_PER_NODE, FILES = 4096, 65536
"""File descriptors: Ray warns below the first, and its guide asks for the second for large clusters."""
THREADS, THREADS_PER_WORKER = 500, 500
"""Processes and threads of a run: a base, and for every GPU; 637 with one in the quick start (docs/doctor.md)."""
COLOCATED = 3
"""CPUs that verl reserves in Ray for every GPU (ResourcePoolManager.max_colocate_count)."""
RAY_ACTORS = 2
"""CPUs for the task runner and TransferQueue's controller."""


def node_checks(config: DictConfig) -> list[Check]:
    """Everything that a training needs of a node, but for the GPUs."""
    return [memory(config), shared_memory(config), write_access(config), *ray_checks(config)]


def ray_checks(config: DictConfig) -> list[Check]:
    """What Ray needs of a node; of the configuration only `cluster` is read."""
    return [scratch(config), limits(config), interfaces(config)]


# ---- memory ----------------------------------------------------------------------------------------------------------


def cgroup_room(controller: str, limit_v2: str, used_v2: str, limit_v1: str, used_v1: str) -> float:
    """The least of limit minus use over this process's control group and those above it; inf without a limit."""
    room = math.inf
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", controller):
            continue
        root, names = (CGROUP / controller, (limit_v1, used_v1)) if controllers else (CGROUP, (limit_v2, used_v2))
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            limit, used = (_number(group / name) for name in names)
            if limit is not None and used is not None:
                room = min(room, limit - used + (_file_cache(group) if controller == "memory" else 0))
    return room


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None  # no such limit here
    return int(text) if text.isdigit() else None


def _file_cache(group: Path) -> int:
    """Bytes of a control group that the kernel gives back when they are needed."""
    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    counts = {name: int(value) for name, value in map(str.split, lines)}
    return counts.get("total_inactive_file", counts.get("inactive_file", 0))


def free_memory() -> float:
    """Bytes that a new process may use, by the machine and by the limits of its control group (container, Slurm)."""
    limits = ("memory.max", "memory.current", "memory.limit_in_bytes", "memory.usage_in_bytes")
    return min(psutil.virtual_memory().available, cgroup_room("memory", *limits))


def memory(config: DictConfig) -> Check:
    """Free memory against plan.host_memory; a little less is a note only, for libraries' pages can be given back."""
    free, need = free_memory(), plan.host_memory(config)
    sentence = (
        f"memory: {gib(free)} free, about {gib(need)} needed with {config.cluster.gpus_per_node} worker(s) on the "
        "node: end what else runs here, ask for more (sbatch --mem), or lower cluster.gpus_per_node",
    )
    problems = sentence if free < MEMORY_SURE * need else ()
    notes = sentence if MEMORY_SURE * need <= free < need else ()
    return Check("memory", f"{gib(free)} free, about {gib(need)} needed", problems, notes)


# ---- GPUs ------------------------------------------------------------------------------------------------------------


def visible_gpus() -> list[tuple[str, float, float]]:
    """Index, total and free bytes of every GPU that this process may use, as nvidia-smi says."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits"]
    listing = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False).stdout
    gpus = {}
    for line in listing.splitlines():
        index, uuid, *sizes = (cell.strip() for cell in line.split(","))
        if all(size.isdigit() for size in sizes):  # a GPU cut into MIG slices has no number here
            gpus[index] = gpus[uuid] = (index, *(int(size) * 2**20 for size in sizes))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = gpus if visible is None else [entry.strip() for entry in visible.split(",")]
    return list(dict.fromkeys(gpus[entry] for entry in chosen if entry in gpus))


def gpu_memory(config: DictConfig, count: int) -> Check:
    """Free memory of the first `count` GPUs against the plan, or vLLM's share where the plan does not apply."""
    fraction = config.actor_rollout_ref.rollout.gpu_memory_utilization
    found, problems, notes = [], [], []
    for index, total, free in visible_gpus()[:count]:
        need, reason = fraction * total, f"actor_rollout_ref.rollout.gpu_memory_utilization={fraction}"
        try:
            shape, _ = plan.find_shape(config.model.path)
            planned = plan.peak(shape, plan.read_setup(config), total)
        except UserError:
            planned = None
        if planned is not None and planned > plan.USABLE * total:
            notes.append(
                f"GPU {index}: the run needs about {gib(planned)}, the GPU has {gib(total)}: python -m "
                "recipe.paec.plan says which settings would fit"
            )
        elif planned is not None:
            need, reason = max(need, planned), "recipe.paec.plan"
        found.append(f"{index}: {gib(free)}")
        if free < need:
            problems.append(
                f"GPU {index}: {gib(free)} of {gib(total)} are free, {gib(need)} are needed ({reason}): end what else "
                "uses it (nvidia-smi lists it), choose other GPUs with CUDA_VISIBLE_DEVICES, or lower "
                "actor_rollout_ref.rollout.gpu_memory_utilization"
            )
    return Check("GPU memory", "free on " + ", ".join(found) if found else "not known", tuple(problems), tuple(notes))


# ---- shared memory and folders ---------------------------------------------------------------------------------------


def leftover_segments(folder: Path = SHM) -> list[Path]:
    """Our segments in shared memory that no process has mapped, a minute old at least."""
    found = {
        str(file)
        for file in folder.iterdir()
        if any(fnmatch.fnmatch(file.name, pattern) for pattern in SEGMENTS)
        and file.stat().st_uid == os.geteuid()
        and time.time() - file.stat().st_mtime > 60
    }
    for maps in Path("/proc").glob("[0-9]*/maps") if found else ():
        try:
            found -= set(re.findall(rf"{folder}/\S+", maps.read_text(encoding="utf-8", errors="replace")))
        except OSError:
            continue  # it has ended, or is another user's
    return [Path(name) for name in sorted(found)]


def shared_memory(config: DictConfig) -> Check:
    """/dev/shm against what the weight transfer, vLLM and NCCL put there; what killed processes have left in it."""
    free = shutil.disk_usage(SHM).free
    # With GPUs the weights travel from one to the other.
    bucket = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20
    need = NCCL if config.cluster.platform == "cuda" else QUEUES + config.cluster.gpus_per_node * bucket
    problems, notes = [], []
    segments = leftover_segments()
    advice = ""
    if segments:
        size = sum(segment.stat().st_blocks * 512 for segment in segments)
        names = ", ".join(segment.name for segment in segments[:3]) + (", ..." if segments[3:] else "")
        advice = (
            f"{len(segments)} segment(s) that no process uses take {gib(size)} of {SHM} ({names}), killed runs left "
            "them: delete them with rm"
        )
    if free < need:
        problems.append(
            f"shared memory: {gib(free)} free in {SHM}, {gib(need)} needed: make it larger (mount -o "
            f"remount,size=16g {SHM}; docker run --shm-size=16g)" + (f"; {advice}" if advice else "")
        )
    elif advice:
        notes.append(advice)
    store = min(OBJECT_STORE * free_memory(), OBJECT_STORE_CAP)
    if need <= free < store and config.cluster.ray_address is None:
        notes.append(
            f"shared memory: {gib(free)} free in {SHM}, Ray wants {gib(store)} for its object store and will use a "
            "slower folder on disk: make it larger (docker run --shm-size=16g)"
        )
    return Check("shared memory", f"{gib(free)} free, {gib(need)} needed", tuple(problems), tuple(notes))


def scratch_folder(config: DictConfig) -> Path:
    """Where Ray's temporary folder is made."""
    names = ("RAY_TMPDIR", "TMPDIR") if config.cluster.ray_address is None else ("PAEC_TMP", "RAY_TMPDIR", "TMPDIR")
    return Path(next((os.environ[name] for name in names if os.environ.get(name)), "/tmp"))


def scratch(config: DictConfig) -> Check:
    """Room in the folder of Ray's temporary files."""
    folder = scratch_folder(config)
    knob = "RAY_TMPDIR" if config.cluster.ray_address is None else "PAEC_TMP"
    if not folder.is_dir():
        return Check("Ray's files", str(folder), (f"{folder}: no such folder for Ray's files: set {knob} to another",))
    usage, most = shutil.disk_usage(folder), float(os.environ.get("RAY_local_fs_capacity_threshold", RAY_FULL))
    full = 1 - usage.free / usage.total
    problems = []
    if full > most:
        problems.append(
            f"{folder}: its file system is {full:.0%} full, and above {most:.0%} Ray refuses to store there: make "
            f"room, or set {knob} to a folder elsewhere"
        )
    elif usage.free < SCRATCH:
        problems.append(
            f"{folder}: {gib(usage.free)} free for Ray's logs and objects, {gib(SCRATCH)} needed: make room, or set "
            f"{knob} to a folder elsewhere"
        )
    return Check("Ray's files", f"{folder}, {gib(usage.free)} free, {full:.0%} full", tuple(problems))


def existing(path: Path) -> Path:
    """The path, or the lowest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def unwritable(folder: Path) -> str | None:
    """Why no file can be written in `folder`, None if one was (it is deleted again)."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".paec-doctor-", dir=folder) as stream:
            stream.write(b"x" * 2**16)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.strerror
    return None


def write_access(config: DictConfig) -> Check:
    """A file really written, and deleted, where the run and its checkpoints will be."""
    problems = []
    places: dict[Path, str] = {}
    for folder in (config.run.directory, config.trainer.default_local_dir):
        places.setdefault(existing(Path(folder)), folder)
    for place, folder in places.items():
        if reason := unwritable(place):
            problems.append(f"{folder}: {place} cannot be written ({reason}): set run.root to a folder that can")
    return Check("write access", ", ".join(map(str, places)), tuple(problems))


def same_files(config: DictConfig) -> Check:
    """Model and data, on a node that is not the one where they were checked."""
    files = [file for key in ("train_files", "val_files") for file in config.data[key]]
    missing = [file for file in files if not Path(file).expanduser().is_file()]
    if model_folder(config.model.path) is None:
        missing.insert(0, config.model.path)
    problems = tuple(
        f"{name} is not on node {socket.gethostname()}: model and data must lie at the same paths on all nodes"
        for name in missing
    )
    return Check("files", "model and data are there", problems)


# ---- limits and network ----------------------------------------------------------------------------------------------


def limits(config: DictConfig) -> Check:
    """File descriptors, processes, CPUs and, for RDMA, locked memory."""
    problems = []
    cluster = config.cluster
    soft, hard = (_limit(value) for value in resource.getrlimit(resource.RLIMIT_NOFILE))
    files = max(soft, min(hard, FILES))  # Ray raises its own soft limit so far
    need = min(FILES_PER_NODE * cluster.nodes, FILES)
    if files < need:
        problems.append(
            f"open files: the limit is {files:.0f}, Ray needs {need}: ulimit -n {need} in the shell that starts this, "
            "or have an administrator raise the hard limit (limits.conf; LimitNOFILE of slurmd)"
        )
    room = min(_limit(resource.getrlimit(resource.RLIMIT_NPROC)[0]) - _own_threads(), _cgroup_processes())
    threads = THREADS + THREADS_PER_WORKER * cluster.gpus_per_node
    if room < threads:
        problems.append(
            f"processes: {room:.0f} more processes and threads are allowed, about {threads} needed: ulimit -u "
            "unlimited, or raise the container's limit (docker run --pids-limit)"
        )
    locked = _limit(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
    if cluster.platform == "cuda" and cluster.nodes > 1 and Path("/sys/class/infiniband").is_dir():
        if locked < math.inf:
            problems.append(
                f"locked memory: the limit is {gib(locked)}, InfiniBand needs it unlimited: ulimit -l unlimited, or "
                "memlock in limits.conf (LimitMEMLOCK of slurmd)"
            )
    found = f"{files:.0f} open files, {'any number of' if room == math.inf else f'{room:.0f} more'} processes"
    return Check("limits", found, tuple(problems))


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
    """CPUs that a Ray started here will offer, against what verl's workers reserve: too few, and it waits for ever."""
    offered = config.cluster.num_cpus or os.cpu_count()
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    gpus = config.cluster.gpus_per_node + config.cluster.rollout_nodes * config.cluster.rollout_gpus_per_node
    need = COLOCATED * gpus + units + RAY_ACTORS
    problems = ()
    if offered < need:
        problems = (
            f"CPUs: Ray would offer {offered}, the run reserves {need} ({COLOCATED} for every GPU, {units} for the "
            f"queue's storage, {RAY_ACTORS} for its controllers) and would wait for ever: set cluster.num_cpus={need}",
        )
    return Check("CPUs", f"{offered} for Ray, {need} reserved", problems)


def interfaces(config: DictConfig) -> Check:
    """The interfaces that gloo and NCCL are told to use; without one, the host name must lead to this machine."""
    env, there = {**os.environ, **config.cluster.env}, psutil.net_if_addrs()
    problems, found = [], []
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        wanted = env.get(name, "")
        if wanted and not _matches(wanted, name, list(there)):
            problems.append(
                f"{name}={wanted}: this machine has {', '.join(sorted(there))}: set it to the one that connects the "
                "nodes, or unset it"
            )
        elif wanted:
            found.append(f"{name}={wanted}")
    host = socket.gethostname()
    own = {entry.address.split("%")[0] for entries in there.values() for entry in entries}
    if "127.0.0.1" not in own:
        problems.append("there is no loopback interface with 127.0.0.1, which Ray needs: ip link set lo up")
    if not env.get("GLOO_SOCKET_IFNAME"):
        remedy = f"add the right address of {host} to /etc/hosts, or set GLOO_SOCKET_IFNAME to the nodes' interface"
        try:
            addresses = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
        except socket.gaierror as error:
            addresses = set()
            problems.append(f"the host name {host} cannot be resolved ({error.strerror}), gloo would hang: {remedy}")
        strange = {a for a in addresses if a not in own and not a.startswith("127.")}
        if addresses and strange == addresses:
            problems.append(
                f"the host name {host} leads to {', '.join(sorted(strange))}, which is no address of this machine: "
                f"gloo would hang: {remedy}"
            )
        if config.cluster.nodes > 1 and addresses and all(a.startswith("127.") or a == "::1" for a in addresses):
            problems.append(
                f"the host name {host} leads to {', '.join(sorted(addresses))}, where no other node can reach it: "
                f"{remedy}"
            )
        found.append(f"{host} is {', '.join(sorted(addresses)) or 'unknown'}")
    return Check("network", "; ".join(found), tuple(problems))


def _matches(wanted: str, name: str, there: list[str]) -> bool:
    """NCCL takes prefixes, "=" for whole names and "^" for those that are not to be used; gloo a list of names."""
    if name.startswith("GLOO"):
        return set(wanted.split(",")) <= set(there)
    exclude, wanted = wanted.startswith("^"), wanted.removeprefix("^")
    exact, wanted = wanted.startswith("="), wanted.removeprefix("=")
    entries = [entry.split(":")[0] for entry in wanted.split(",")]
    hit = [any(one == entry if exact else one.startswith(entry) for entry in entries) for one in there]
    return not all(hit) if exclude else any(hit)
