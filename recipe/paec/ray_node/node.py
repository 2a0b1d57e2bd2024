"""A Ray node that exits with this process, and the wait for nodes to join the cluster."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from recipe.paec.common.errors import UserError
from recipe.paec.common.files import replace_file
from recipe.paec.common.process_tree import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, die_with_parent, prctl
from recipe.paec.common.ray_access import cluster_token, write_token
from recipe.paec.ray_node.addresses import free_port, host_of, interface_of, own_address

NOT_JOINED = 3
"""Exit code when the cluster is not complete in time."""
LONGEST_SCRATCH = 40
"""Characters: Ray adds 65 for its Unix sockets, whose paths the kernel limits to 107."""
LOCK = "lock"
"""File in a node's temporary folder that its process keeps locked."""
MARK = "paec ray node on {host}"
"""Content of that file: marks the folder as ours, and names the host that can check whether it is in use."""
GRACE = 6.0
"""Seconds that Ray has to exit after SIGTERM: 1 to 3 are usual, twice as many on a busy machine."""
KILLED = 3.0
"""Seconds for killed processes to disappear. With GRACE, and a second to remove files, less than the 12 that
launch/slurm/paec.sbatch gives a node when Slurm is about to kill the job."""
STOP = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that stop a node cleanly; srun forwards the second to its tasks, but kills them on the first."""


# ---- one node --------------------------------------------------------------------------------------------------------


def token_file(create: bool) -> Path:
    """The cluster's token (`RAY_AUTH_TOKEN_PATH`), created if `create`; UserError if missing or readable by others."""
    path = cluster_token()
    if not path.is_file() and create:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_token(path)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: copy the head's token there, or set RAY_AUTH_TOKEN_PATH to the token file"
        )
    if path.stat().st_mode & 0o077:
        raise UserError(
            f"{path} can be read by other users: run chmod 600 {path}, and create a new token if it was ever used"
        )
    return path


def run_node(arguments: list[str], name: str, address: str, gpus: int | None, cpus: int | None, on_start) -> int:
    """`ray start` with `arguments` until it exits or this process is told to stop; returns the exit code.

    Args:
        name: name of the node in `ray.nodes()`.
        address: its address; libraries that open their own connections use the same interface.
        on_start: called once with the Ray head's address, when Ray is up.
    """
    root = os.environ.get("PAEC_TMP", "/tmp")
    remove_leftovers(Path(root))
    # Ray makes its folder readable for everyone, so it is placed inside ours, which is private.
    private = Path(tempfile.mkdtemp(prefix="ray-", dir=root))
    scratch, log = private / "r", private / "start.log"
    held = open(private / "new", "w", encoding="ascii")
    fcntl.flock(held, fcntl.LOCK_EX)
    held.write(MARK.format(host=socket.gethostname()))
    held.flush()
    os.replace(private / "new", private / LOCK)  # it only appears once it is locked
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # Ray's daemons become our children when their parent exits
    interface = interface_of(address)
    env = {"NCCL_SOCKET_IFNAME": f"={interface}", "GLOO_SOCKET_IFNAME": interface, **os.environ}
    env.pop(
        "ROCR_VISIBLE_DEVICES", None
    )  # Slurm may set it along with CUDA's on any GPU node, and verl refuses both together
    command = [str(Path(sys.executable).with_name("ray")), "start", *arguments, "--block", "--disable-usage-stats"]
    command += ["--node-name", name, "--node-ip-address", address, "--temp-dir", str(scratch)]
    command += ["--dashboard-agent-listen-port", "0"]
    command += [f"--num-{kind}={count}" for kind, count in (("cpus", cpus), ("gpus", gpus)) if count is not None]
    try:
        if len(str(scratch)) > LONGEST_SCRATCH:
            raise UserError(f"PAEC_TMP={root} is too long for Ray's sockets: choose a folder with a shorter path")
        with open(log, "wb") as stream:
            # Its own session: signals to our group, including Ctrl-C, only reach Ray through `end`.
            ray = subprocess.Popen(
                command, stdout=stream, stderr=stream, env=env, start_new_session=True, preexec_fn=die_with_parent
            )
        try:
            return _watch(ray, scratch / "ray_current_cluster", log, on_start)
        finally:
            end(ray)
    finally:
        remove(private)
        held.close()


def remove(folder: Path) -> None:
    """Remove one of our folders; prints a note if something remains."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # a process was still writing
        time.sleep(0.5)
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        print(
            f"note: {folder} could not be removed; the next node started here by this user will remove it", flush=True
        )


def remove_leftovers(root: Path) -> None:
    """Remove the temporary folders of killed nodes of this user and host whose processes have all exited.

    Only private folders of this user are removed that have our mark in an unlocked lock file. Anything else here,
    including links, is neither followed nor waited for.
    """
    for folder in root.glob("ray-*"):
        with suppress(OSError):  # in use, removed in the meantime, or somebody else's
            _remove_leftover(folder)


def _remove_leftover(folder: Path) -> None:
    private = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        status = os.fstat(private)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            return
        lock = os.open(LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=private)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            marked = os.read(lock, 4096).decode("ascii", "replace") == MARK.format(host=socket.gethostname())
            if marked and not users(folder):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
    finally:
        os.close(private)


def users(folder: Path) -> list[int]:
    """Processes of this user that name a folder in their command line or have a file in it open."""
    found, mark = [], str(folder.absolute())
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            files = Path(f"/proc/{process.pid}/fd").iterdir()
            opened = (os.readlink(file) for file in files)
            if any(mark in word for word in process.cmdline()) or any(f.startswith(f"{mark}/") for f in opened):
                found.append(process.pid)
    return found


def _watch(ray: subprocess.Popen, address_file: Path, log: Path, on_start) -> int:
    while not address_file.is_file() or not address_file.read_text():
        if ray.poll() is not None:
            break
        time.sleep(0.2)
    else:
        on_start(address_file.read_text().strip())
    ray.wait()
    print(log.read_text(encoding="utf-8", errors="replace")[-4000:], file=sys.stderr)
    print("error: Ray exited unexpectedly; its last output is above", file=sys.stderr, flush=True)
    return 1


def end(ray: subprocess.Popen, grace: float = GRACE) -> None:
    """Terminate a Ray node; after `grace` seconds kill what remains of its tree, which takes at most KILLED more."""
    ray.terminate()
    with suppress(subprocess.TimeoutExpired):
        ray.wait(grace)
    deadline = time.monotonic() + KILLED
    # Everything that a node has started is below this process. New processes may appear while old ones are killed.
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for member in left:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(left, timeout=0.2)


def head(options: argparse.Namespace) -> int:
    """A head node: creates the token, prints the cluster's address (and writes it to `--address-file`)."""
    if options.end_with_parent:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token_file(create=True)))
    address = own_address(options.peer)
    arguments = ["--head", f"--port={options.port}", "--include-dashboard=false"]
    arguments.append(f"--ray-client-server-port={free_port(address)}")  # the client server cannot be disabled

    def started(cluster: str) -> None:
        print(f"Ray head {options.name} at {cluster}, token in {os.environ['RAY_AUTH_TOKEN_PATH']}", flush=True)
        if options.address_file:
            replace_file(options.address_file, cluster + "\n")

    return run_node(arguments, options.name, address, options.gpus, options.cpus, started)


def worker(options: argparse.Namespace) -> int:
    """A worker node that joins the head at `options.address`."""
    peer = host_of(options.address)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token_file(create=False)))
    if options.outlast_head:
        signal.signal(signal.SIGTERM, lambda number, _: outlast(options.address, number))
    arguments = [f"--address={options.address}"]

    def started(cluster: str) -> None:
        print(f"Ray worker {options.name} has joined {cluster}", flush=True)

    return run_node(arguments, options.name, own_address(peer), options.gpus, options.cpus, started)


def outlast(head: str, number: int) -> None:
    """Handler of SIGTERM for a worker of a batch job: keep running as long as the head does, then `stop`.

    Slurm signals all steps of a job at the same time. A training that saves a checkpoint still needs its workers.
    """
    place = (host_of(head), int(head.rpartition(":")[2]))
    while True:
        try:
            socket.create_connection(place, timeout=5).close()
        except OSError:
            stop(number, None)
        time.sleep(1)


# ---- the cluster -----------------------------------------------------------------------------------------------------


def wait(options: argparse.Namespace) -> int:
    """Wait until all nodes in `options.names` have joined; after the timeout, name the others and return NOT_JOINED."""
    host_of(options.address)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token_file(create=False)))
    import ray

    deadline = time.monotonic() + options.timeout
    ray.init(address=options.address, log_to_driver=False, logging_level="ERROR")
    signal.signal(
        signal.SIGTERM, lambda *_: os._exit(143)
    )  # there is nothing to clean up, and Ray's own handler fails here
    there: set[str] = set()
    while True:
        now = {node["NodeName"] for node in ray.nodes() if node["Alive"]} & set(options.names)
        for name in sorted(now - there):
            print(f"{name} has joined ({len(now)} of {len(options.names)})", flush=True)
        there = now
        missing = [name for name in options.names if name not in there]
        if not missing:
            return 0
        if time.monotonic() > deadline:
            print(
                f"error: {', '.join(missing)} did not join Ray at {options.address} within {options.timeout:.0f} s "
                f"({len(there)} of {len(options.names)} nodes have joined): read that node's log, check that "
                "it can reach the head's address (PAEC_INTERFACE chooses another), or raise JOIN_TIMEOUT",
                file=sys.stderr,
                flush=True,
            )
            return NOT_JOINED
        time.sleep(1)


def stop(number: int, _) -> None:
    """For the signals of STOP: exit through the `finally` blocks, ignoring a second signal."""
    for each in STOP:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(143 if number == signal.SIGTERM else 0)
