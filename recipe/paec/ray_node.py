"""`python -m recipe.paec.ray_node head|worker|wait ...`: a Ray node that ends with this process, and who has joined.

Safe on machines shared with others: a token that every connection must show, no dashboard, every port but the head's
chosen by the system, a private temporary folder that is removed at the end (or by the next node on this machine, where
this process was killed). Ray's processes cannot outlive this one, not even when it is killed with SIGKILL.
"""

from __future__ import annotations

import argparse
import fcntl
import ipaddress
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

from recipe.paec.command_line import complain
from recipe.paec.errors import UserError
from recipe.paec.safety import cluster_token, write_token
from recipe.paec.supervise import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, die_with_parent, prctl

NOT_JOINED = 3
"""Exit code when the cluster is not complete in time."""
LONGEST_SCRATCH = 40
"""Characters: Ray adds 65 for its Unix sockets, whose paths the kernel limits to 107."""
LOCK = "lock"
"""File in a node's temporary folder that its process holds a lock on."""
MARK = "paec ray node on {host}"
"""What stands in that file: the folder is one of ours, and who can know whether it is in use."""
GRACE = 6.0
"""Seconds that Ray has to end when it is asked: 1 to 3 are usual, and as long again on a busy machine."""
KILLED = 3.0
"""Seconds for killed processes to disappear. With GRACE, and a second to remove files, less than the 12 that
launch/slurm/paec.sbatch gives a node when Slurm is about to kill the job."""
STOP = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that end a node in order; srun forwards the second to its tasks, where the first makes it kill them."""


# ---- addresses -------------------------------------------------------------------------------------------------------


def own_address(peer: str | None) -> str:
    """This machine's address in the cluster, IPv4 where there is a choice.

    Args:
        peer: a host name or address in the cluster; the answer is the address that packets to it leave from. None, or
            this machine itself: the address Ray would choose.

    Raises:
        UserError: `PAEC_INTERFACE` (which overrides the choice) does not exist or has no address; the peer cannot be
            resolved or reached.
    """
    interface = os.environ.get("PAEC_INTERFACE")
    if interface:
        return interface_address(interface)
    route = route_to(peer) if peer else None
    if route is not None and not ipaddress.ip_address(route).is_loopback:
        return route
    import ray.util

    return ray.util.get_node_ip_address()


def interface_address(interface: str) -> str:
    """The first IPv4 address of a network interface, else its first IPv6 address that is not link-local."""
    found = psutil.net_if_addrs()
    if interface not in found:
        raise UserError(f"PAEC_INTERFACE={interface}: this machine has {', '.join(sorted(found))}: choose one of them")
    for family in (socket.AF_INET, socket.AF_INET6):
        for entry in found[interface]:
            address = entry.address.split("%")[0]
            if entry.family == family and not ipaddress.ip_address(address).is_link_local:
                return address
    raise UserError(f"PAEC_INTERFACE={interface}: it has no address that others can reach: choose another interface")


def route_to(peer: str) -> str:
    """The address that packets from this machine to `peer` carry; UserError if there is no route."""
    try:
        choices = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)
    except socket.gaierror as error:
        raise UserError(
            f"the host name {peer} cannot be resolved on {socket.gethostname()} ({error.strerror}): give an address, "
            "or set PAEC_INTERFACE to the cluster's network interface"
        ) from None
    problem = None
    for family, kind, protocol, _, target in sorted(choices, key=lambda choice: choice[0] != socket.AF_INET):
        with socket.socket(family, kind, protocol) as stream:
            try:
                stream.connect(target)  # UDP: nothing is sent
            except OSError as error:
                problem = error
                continue
            return stream.getsockname()[0].split("%")[0]
    raise UserError(
        f"no route from {socket.gethostname()} to {peer} ({problem}): set PAEC_INTERFACE to the cluster's interface"
    )


def interface_of(address: str) -> str:
    """The network interface that has an address; UserError if none has."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address.split("%")[0] == address for entry in entries):
            return name
    raise UserError(f"{address} is no address of {socket.gethostname()}: set PAEC_INTERFACE to the right interface")


def host_of(address: str) -> str:
    """The host of "host:port" or "[host]:port"; UserError if it is neither."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not host or (":" in host and not host.startswith("[")):
        raise UserError(f"{address} is no address of a Ray head: write HOST:PORT, or [HOST]:PORT for IPv6")
    return host.strip("[]")


# ---- one node --------------------------------------------------------------------------------------------------------


def token_file(create: bool) -> Path:
    """The cluster's token (`RAY_AUTH_TOKEN_PATH`), made if asked; UserError if there is none or others can read it."""
    path = cluster_token()
    if not path.is_file() and create:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_token(path)
    if not path.is_file():
        raise UserError(f"no token at {path}: copy the head's there, or name the file with RAY_AUTH_TOKEN_PATH")
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path} can be read by others: chmod 600 {path}, and have a new one made if it was ever used")
    return path


def run_node(arguments: list[str], name: str, address: str, gpus: int | None, cpus: int | None, on_start) -> int:
    """`ray start` with `arguments` until it ends or this process is told to; returns the exit code.

    Args:
        name: what the node is called in `ray.nodes()`.
        address: its address; libraries that open connections of their own are pointed at the same interface.
        on_start: called once with the Ray head's address, when Ray is up.
    """
    root = os.environ.get("PAEC_TMP", "/tmp")
    remove_leftovers(Path(root))
    # Ray opens its own folder to everyone, so that one lies in ours, which is private.
    private = Path(tempfile.mkdtemp(prefix="ray-", dir=root))
    scratch, log = private / "r", private / "start.log"
    held = open(private / "new", "w", encoding="ascii")
    fcntl.flock(held, fcntl.LOCK_EX)
    held.write(MARK.format(host=socket.gethostname()))
    held.flush()
    os.replace(private / "new", private / LOCK)  # there only when it is locked
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # Ray's daemons become our children when what started them ends
    interface = interface_of(address)
    env = {"NCCL_SOCKET_IFNAME": f"={interface}", "GLOO_SOCKET_IFNAME": interface, **os.environ}
    env.pop("ROCR_VISIBLE_DEVICES", None)  # Slurm may set it beside CUDA's on any GPU node, and verl refuses the two
    command = [str(Path(sys.executable).with_name("ray")), "start", *arguments, "--block", "--disable-usage-stats"]
    command += ["--node-name", name, "--node-ip-address", address, "--temp-dir", str(scratch)]
    command += ["--dashboard-agent-listen-port", "0"]
    command += [f"--num-{kind}={count}" for kind, count in (("cpus", cpus), ("gpus", gpus)) if count is not None]
    try:
        if len(str(scratch)) > LONGEST_SCRATCH:
            raise UserError(f"PAEC_TMP={root} is too long for Ray's sockets: choose a folder with a shorter path")
        with open(log, "wb") as stream:
            # A session of its own: signals to our group, Ctrl-C among them, reach Ray through `end` alone.
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
    """Remove a folder of ours; says so where something stays."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # a process was still writing
        time.sleep(0.5)
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        print(f"note: {folder} could not be removed; the next node of this user here does it", flush=True)


def remove_leftovers(root: Path) -> None:
    """Remove the temporary folders of nodes of this user and host that were killed, all of whose processes are gone.

    Nothing is removed but private folders of this user with our mark in a lock that nobody holds. What others put
    here, links among it, is neither followed nor waited for.
    """
    for folder in root.glob("ray-*"):
        with suppress(OSError):  # in use, gone meanwhile, or somebody else's
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
    print("error: Ray ended by itself (above: the end of what it printed)", file=sys.stderr, flush=True)
    return 1


def end(ray: subprocess.Popen, grace: float = GRACE) -> None:
    """Terminate a Ray node; kill what is left of it and all below it after `grace` seconds; KILLED more at most."""
    ray.terminate()
    with suppress(subprocess.TimeoutExpired):
        ray.wait(grace)
    deadline = time.monotonic() + KILLED
    # All that a node has started is below this process. New ones may come while the old ones are killed.
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for member in left:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(left, timeout=0.2)


def head(options: argparse.Namespace) -> int:
    """A head node: makes the token, prints the cluster's address (and writes it to `--address-file`)."""
    if options.end_with_parent:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token_file(create=True)))
    address = own_address(options.peer)
    arguments = ["--head", f"--port={options.port}", "--include-dashboard=false"]
    arguments.append(f"--ray-client-server-port={free_port(address)}")  # it cannot be switched off

    def started(cluster: str) -> None:
        print(f"Ray head {options.name} at {cluster}, token in {os.environ['RAY_AUTH_TOKEN_PATH']}", flush=True)
        if options.address_file:
            temporary = options.address_file.with_suffix(".tmp")
            temporary.write_text(cluster + "\n", encoding="ascii")
            os.replace(temporary, options.address_file)

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
    """Handler of SIGTERM for a worker of a batch job: stay as long as the head does, then `stop`.

    Slurm tells all steps of a job at once. A training that is to save a checkpoint needs its workers meanwhile.
    """
    place = (host_of(head), int(head.rpartition(":")[2]))
    while True:
        try:
            socket.create_connection(place, timeout=5).close()
        except OSError:
            stop(number, None)
        time.sleep(1)


def free_port(address: str) -> int:
    """A TCP port that nothing uses at `address` now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as stream:
        stream.bind((address, 0))
        return stream.getsockname()[1]


# ---- the cluster -----------------------------------------------------------------------------------------------------


def wait(options: argparse.Namespace) -> int:
    """Until all nodes named in `options.names` are there; NOT_JOINED, with the names of the others, after the time."""
    host_of(options.address)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token_file(create=False)))
    import ray

    deadline = time.monotonic() + options.timeout
    ray.init(address=options.address, log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))  # there is nothing to tidy up, and Ray's own handler trips
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
                f"({len(there)} of {len(options.names)} nodes are there): look at that node and its log, check that "
                "it can reach the head's address (PAEC_INTERFACE chooses another), or raise JOIN_TIMEOUT",
                file=sys.stderr,
                flush=True,
            )
            return NOT_JOINED
        time.sleep(1)


def stop(number: int, _) -> None:
    """For the signals of STOP: leave through the `finally`s, undisturbed by a second one."""
    for each in STOP:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(143 if number == signal.SIGTERM else 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="recipe.paec.ray_node", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    node = argparse.ArgumentParser(add_help=False)
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    node.add_argument("--name", default=name, help="what this node is called (default: its host name)")
    node.add_argument("--gpus", type=int, help="GPUs to offer (default: those of the machine)")
    node.add_argument("--cpus", type=int, help="CPUs to offer (default: those of the machine)")
    command = commands.add_parser("head", parents=[node], help="start the head and stay")
    command.add_argument("--peer", help="another node: the head takes its address on the way there")
    command.add_argument("--port", type=int, default=6379, help="port of the head, 0 for a free one (default 6379)")
    command.add_argument("--address-file", type=Path, help="file to write the address to when Ray is up")
    command.add_argument("--end-with-parent", action="store_true", help="end when the process that started this ends")
    command = commands.add_parser("worker", parents=[node], help="join a head and stay")
    command.add_argument("address", help="HOST:PORT of the head")
    command.add_argument("--outlast-head", action="store_true", help="stay on SIGTERM until the head has ended")
    command = commands.add_parser("wait", help="wait until all nodes have joined")
    command.add_argument("address", help="HOST:PORT of the head")
    command.add_argument("names", nargs="+", help="what the nodes are called")
    command.add_argument("--timeout", type=float, default=300, help="seconds (default 300)")
    options = parser.parse_args()
    for number in STOP:
        signal.signal(number, stop)
    try:
        return {"head": head, "worker": worker, "wait": wait}[options.command](options)
    except UserError as error:
        return complain(error.problems)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
