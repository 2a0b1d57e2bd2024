"""Ray nodes without Slurm: the address they take, the token, two nodes on this machine, and that nothing survives."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pipeline_runs
import psutil
import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.ray_node import node as ray_node_node
from recipe.paec.ray_node.addresses import free_port, host_of, interface_of, own_address, route_to

REPOSITORY = Path(__file__).resolve().parents[4]


def addresses(family: int) -> list[str]:
    """This machine's addresses that others could use."""
    found = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries if entry.family == family]
    return [address for address in found if not address.startswith(("127.", "fe80:")) and address != "::1"]


# ---- addresses and the token -----------------------------------------------------------------------------------------


def test_the_route_decides_the_address(monkeypatch):
    monkeypatch.delenv("PAEC_INTERFACE", raising=False)
    assert route_to("127.0.0.1") == "127.0.0.1"
    assert route_to("localhost") == "127.0.0.1"  # IPv4 where both exist
    for address in addresses(socket.AF_INET):
        assert own_address(address) == address


@pytest.mark.skipif(not addresses(socket.AF_INET6), reason="this machine has no IPv6 address")
def test_ipv6(monkeypatch):
    monkeypatch.delenv("PAEC_INTERFACE", raising=False)
    for address in addresses(socket.AF_INET6):
        assert own_address(address) == address


def test_interface_overrides_the_route(monkeypatch):
    monkeypatch.setenv("PAEC_INTERFACE", "lo")
    assert own_address("192.0.2.99") == "127.0.0.1"
    monkeypatch.setenv("PAEC_INTERFACE", "ib7")
    with pytest.raises(UserError, match=r"PAEC_INTERFACE=ib7: must be one of this machine's .*\blo\b"):
        own_address(None)


def test_interface_of_an_address():
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(UserError, match=r"203\.0\.113\.7 is not an address of"):
        interface_of("203.0.113.7")


def test_a_name_that_does_not_resolve():
    with pytest.raises(UserError, match=r"no-such-host\.invalid cannot be resolved"):
        route_to("no-such-host.invalid")


@pytest.mark.parametrize(
    ("address", "host"), [("10.0.0.1:6379", "10.0.0.1"), ("[fd00::2]:80", "fd00::2"), ("a:1", "a")]
)
def test_host_of(address, host):
    assert host_of(address) == host


@pytest.mark.parametrize("address", ["", "10.0.0.1", ":6379", "head:", "fd00::2:80", "head:port"])
def test_host_of_nonsense(address):
    with pytest.raises(UserError, match=r"write HOST:PORT, or \[HOST\]:PORT"):
        host_of(address)


def test_address_as_an_override(compose):
    """As launch/slurm/paec.sbatch writes it: text for Hydra, brackets or not, and no part of the run's name."""
    for address in ("10.0.0.1:6379", "[fd00::2]:6379"):
        config = compose("experiment=tiny_cpu", f"cluster.ray_address='{address}'", "cluster.nodes=2")
        assert config.ray_kwargs.ray_init.address == address
        assert config.run.name == "tiny_cpu-paec"
        # Each node's Ray knows its interface; loopback, which one host uses, would reach nobody.
        assert "GLOO_SOCKET_IFNAME" not in config.ray_kwargs.ray_init.runtime_env.env_vars
    assert compose("experiment=tiny_cpu").ray_kwargs.ray_init.runtime_env.env_vars.GLOO_SOCKET_IFNAME == "lo"
    chosen = compose("cluster.ray_address=a:1", "cluster.env.GLOO_SOCKET_IFNAME=ib0")
    assert chosen.ray_kwargs.ray_init.runtime_env.env_vars.GLOO_SOCKET_IFNAME == "ib0"


def test_token_is_private_and_kept(tmp_path, monkeypatch):
    path = tmp_path / "new" / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(UserError, match="does not exist: copy the head's token there"):
        ray_node_node.token_file(create=False)
    assert ray_node_node.token_file(create=True) == path
    first = path.read_text()
    assert len(first) == 64 and int(first, 16) > 0 and path.stat().st_mode & 0o777 == 0o600
    assert ray_node_node.token_file(create=True).read_text() == first
    path.chmod(0o640)
    with pytest.raises(UserError, match="can be read by other users: run"):
        ray_node_node.token_file(create=False)


def node_folder(root: Path, name: str, mark: str = ray_node_node.MARK) -> Path:
    """A node's temporary folder as `run_node` makes it."""
    folder = root / name
    folder.mkdir(mode=0o700)
    (folder / ray_node_node.LOCK).write_text(mark.format(host=socket.gethostname()))
    (folder / "r").mkdir()
    (folder / "r" / "file").touch()
    return folder


def test_only_folders_of_dead_nodes_are_removed(tmp_path):
    node_folder(tmp_path, "ray-dead")
    alive = node_folder(tmp_path, "ray-alive")
    with open(alive / ray_node_node.LOCK) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ray_node_node.remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["ray-alive"]
    ray_node_node.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["a word of its command", "an open file"])
def test_a_folder_stays_while_a_process_of_the_dead_node_lives(tmp_path, how):
    folder = node_folder(tmp_path, "ray-killed")
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with open(folder / "r" / "file") as stream:
        if how == "an open file":
            process = subprocess.Popen(command, stdin=stream)
        else:
            process = subprocess.Popen([*command, f"--temp-dir={folder}/r"])
    assert ray_node_node.users(folder) == [process.pid]
    ray_node_node.remove_leftovers(tmp_path)
    assert (folder / "r" / "file").is_file()
    process.kill()
    process.wait()
    ray_node_node.remove_leftovers(tmp_path)
    assert not folder.exists()


def test_what_is_not_ours_is_neither_removed_nor_waited_for(tmp_path):
    """Another program's folder, another host's, an open one, a link to one of ours, and a pipe in the lock's place."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "ray-link").symlink_to(node_folder(elsewhere, "ray-real"))
    node_folder(root, "ray-unmarked", "")
    node_folder(root, "ray-host", "paec ray node on another")
    node_folder(root, "ray-open").chmod(0o755)
    lock = node_folder(root, "ray-lock") / ray_node_node.LOCK
    lock.rename(elsewhere / "lock")
    lock.symlink_to(elsewhere / "lock")
    os.mkfifo(node_folder(root, "ray-pipe", "") / "pipe")
    (root / "ray-pipe" / "pipe").rename(root / "ray-pipe" / ray_node_node.LOCK)
    (root / "ray-file").touch()
    before = sorted(tmp_path.rglob("*"))
    ray_node_node.remove_leftovers(root)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_of_another_user(tmp_path, monkeypatch):
    folder = node_folder(tmp_path, "ray-theirs")
    monkeypatch.setattr(ray_node_node.os, "getuid", lambda: folder.stat().st_uid + 1)
    ray_node_node.remove_leftovers(tmp_path)
    assert (folder / "r" / "file").is_file()


# Deaf to SIGTERM, with a deaf daemon that keeps writing into the folder.
DEAF = """
import signal, subprocess, sys, time
signal.signal(15, signal.SIG_IGN)
if len(sys.argv) > 2:
    subprocess.Popen([sys.executable, *sys.orig_argv[1:-1]], start_new_session=True)
else:
    print("deaf", flush=True)
for i in range(6000):
    open(f"{sys.argv[1]}/{i}", "w").close()
    time.sleep(0.01)
"""


def test_the_end_of_a_node_is_bounded_and_complete(tmp_path):
    """In a process of its own, which becomes what Ray's orphans belong to."""
    code = f"""
import subprocess, sys, time
from pathlib import Path
from recipe.paec.ray_node import node as ray_node
folder = Path({str(tmp_path / "ray-x")!r})
folder.mkdir()
ray_node.prctl(ray_node.PR_SET_CHILD_SUBREAPER, 1)
command = [sys.executable, "-c", {DEAF!r}, str(folder), "daemon"]
ray = subprocess.Popen(command, stdout=subprocess.PIPE)
ray.stdout.readline()
began = time.monotonic()
ray_node.end(ray, grace=0.5)
ray_node.remove(folder)
print(time.monotonic() - began, folder.exists(), ray_node.users(folder))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    seconds, *rest = done.stdout.split()
    assert rest == ["False", "[]"], done.stdout + done.stderr
    assert 0.5 <= float(seconds) < 0.5 + ray_node_node.KILLED + 2


def test_free_port_is_free():
    port = free_port("127.0.0.1")
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", port))
        assert stream.getsockname()[1] == port


def test_a_worker_outlasts_the_head():
    """On SIGTERM a batch job's worker stays while the head listens, and is gone soon after it."""
    with socket.create_server(("127.0.0.1", 0)) as head:
        call = f"from recipe.paec.ray_node import node; node.outlast('127.0.0.1:{head.getsockname()[1]}', 15)"
        worker = subprocess.Popen([sys.executable, "-c", call], cwd=REPOSITORY)
        head.settimeout(60)
        head.accept()[0].close()
        head.accept()[0].close()
        assert worker.poll() is None
    assert worker.wait(20) == 143


# ---- which Python ----------------------------------------------------------------------------------------------------


def python_sh(**env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(REPOSITORY / "launch" / "python.sh"), "-c", "print(6 * 7)"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_of_the_environment(tmp_path):
    assert python_sh(VENV=sys.prefix).stdout == "42\n"
    failed = python_sh(VENV=str(tmp_path / "none"))
    assert failed.returncode == 2 and "no environment at" in failed.stderr and "setup_env.sh" in failed.stderr


def test_container(tmp_path):
    """The arguments of Apptainer, by a stand-in that runs the command here; there is no real image in a test."""
    stand_in = tmp_path / "apptainer"
    stand_in.write_text(
        f'#!/bin/sh\necho "$@" >&2\nwhile [ "$1" != python ]; do shift; done\nshift\n{sys.executable} "$@"\n'
    )
    stand_in.chmod(0o755)
    done = python_sh(CONTAINER="image with spaces.sif", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.stdout == "42\n"
    assert done.stderr.startswith(f"exec --nv --bind {REPOSITORY} ")
    assert done.stderr.endswith("image with spaces.sif python -c print(6 * 7)\n")
    bare = tmp_path / "bare"
    bare.mkdir()
    for program in ("bash", "dirname", "hostname"):
        (bare / program).symlink_to(shutil.which(program))
    without = python_sh(CONTAINER="image.sif", PATH=str(bare))
    assert without.returncode == 2 and "neither apptainer nor singularity" in without.stderr


# ---- two nodes on this machine ---------------------------------------------------------------------------------------


class Node:
    """A node's script, its output in a file, and the processes it has started."""

    def __init__(self, folder: Path, name: str, *arguments: str):
        self.name, self.log = name, folder / f"{name}.log"
        script = "ray_head.sh" if name == "n1" else "ray_worker.sh"
        command = ["bash", str(REPOSITORY / "launch" / script), *arguments]
        command += ["--name", name, "--cpus", "8", "--gpus", "1"]
        with open(self.log, "wb") as stream:
            self.process = subprocess.Popen(command, env=environment(folder), stdout=stream, stderr=stream)

    def family(self) -> list[psutil.Process]:
        return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]


def environment(folder: Path) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if key not in ("PAEC_INTERFACE", "RAY_ADDRESS")}
    temporary = folder / "t"
    temporary.mkdir(exist_ok=True)
    return {**env, "VENV": sys.prefix, "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "PAEC_TMP": str(temporary)}


def ray_nodes(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "recipe.paec.ray_node", *arguments],
        env=environment(folder),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def short():
    """A folder with a path short enough for sockets; whatever a test leaves running is killed."""
    folder = Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))
    started: list[Node] = []
    yield folder, started
    for node in started:
        if node.process.poll() is None:
            for member in node.family():
                member.kill()
            node.process.wait()
    shutil.rmtree(folder)


def start_two(folder: Path, started: list[Node], *head_arguments: str) -> str:
    """A head and a worker; returns the head's address."""
    file = folder / "address"
    started.append(Node(folder, "n1", "--port", "0", "--address-file", str(file), *head_arguments))
    deadline = time.monotonic() + 90
    while not file.exists():
        assert started[0].process.poll() is None and time.monotonic() < deadline, started[0].log.read_text()
        time.sleep(0.2)
    started.append(Node(folder, "n2", file.read_text().strip()))
    return file.read_text().strip()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_nodes(short):
    """Both join; a stranger without the token does not; who is missing is named; SIGKILL and SIGTERM leave nothing."""
    folder, started = short
    address = start_two(folder, started)
    joined = ray_nodes(folder, "wait", address, "n1", "n2", "--timeout", "60")
    assert joined.returncode == 0, joined.stderr
    assert "(2 of 2)" in joined.stdout
    missing = ray_nodes(folder, "wait", address, "n1", "n2", "n3", "n4", "--timeout", "2")
    assert missing.returncode == ray_node_node.NOT_JOINED
    assert f"n3, n4 did not join Ray at {address} within 2 s (2 of 4 nodes have joined):" in missing.stderr

    stranger = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "status", "--address", address],
        env={**environment(folder), "RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert stranger.returncode != 0 and "InvalidAuthToken" in stranger.stdout + stranger.stderr
    token = (folder / "token").read_text()
    head, worker = (node.family() for node in started)
    assert all(token not in " ".join(member.cmdline()) for member in (*head, *worker))
    for member in (*head, *worker):
        listening = [c.laddr for c in member.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert {port for _, port in listening}.isdisjoint({8265, 10001}), member.cmdline()  # dashboard, client
        if "ray.util.client.server" in member.cmdline():
            assert {ip.removeprefix("::ffff:") for ip, _ in listening} == {"127.0.0.1", host_of(address)}

    started[1].process.kill()
    assert psutil.wait_procs(worker, timeout=20)[1] == []
    started[0].process.terminate()
    assert started[0].process.wait(30) == 143
    assert psutil.wait_procs(head, timeout=5)[1] == []
    # A killed process cannot remove its folder, one that was asked to end has; the next one tidies up.
    (left,) = (folder / "t").iterdir()
    ray_node_node.remove_leftovers(folder / "t")
    assert not left.exists()


@pytest.mark.slow
@pytest.mark.pipeline
@pytest.mark.timeout(1500)
def test_training_on_two_nodes_of_which_one_dies(short, tiny):
    """A rank and a replica on each node train together; SIGKILL of a node's Ray ends the run, the error names it."""
    folder, started = short
    address = start_two(folder, started)
    assert ray_nodes(folder, "wait", address, "n1", "n2", "--timeout", "60").returncode == 0
    command = [sys.executable, "-m", "recipe.paec.train", "experiment=tiny_cpu", f"run.root={folder / 'outputs'}"]
    command += [f"cluster.ray_address='{address}'", "cluster.nodes=2", "cluster.gpus_per_node=1"]
    command += ["cluster.env.OMP_NUM_THREADS=1", "trainer.val_before_train=false", "trainer.save_freq=1"]
    env = {**environment(folder), "PAEC_TINY_DIR": str(tiny), "PAEC_TINY_ARGS": "--steps 240"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    training = subprocess.Popen(command, env=env, cwd=REPOSITORY, **pipe)
    try:
        directory = folder / "outputs" / "tiny_cpu-paec"
        pipeline_runs.wait_for(lambda: len(pipeline_runs.records(directory)) >= 2, 900, training)
        families = [node.family() for node in started]
        for family in families:
            titles = [" ".join(member.cmdline()) for member in family]
            for role in ("ray::WorkerDict", "VLLM::EngineCore"):
                assert sum(title.startswith(role) for title in titles) == 1, (role, titles)
        everything = [*pipeline_runs.descendants(training.pid), *families[0], *families[1]]

        next(member for member in families[1] if member.name() == "raylet").kill()
        killed = time.monotonic()
        output, _ = training.communicate(timeout=180)
        assert time.monotonic() - killed < 60, output
    finally:
        training.kill()
    assert training.returncode == 2, output
    assert re.search(r"^error: .* on n2\) has died", output, re.MULTILINE), output
    assert started[1].process.wait(30) == 1
    started[0].process.terminate()
    assert started[0].process.wait(30) == 143
    assert psutil.wait_procs(everything, timeout=20)[1] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not addresses(socket.AF_INET6), reason="this machine has no IPv6 address")
def test_two_nodes_over_ipv6(short):
    folder, started = short
    own = addresses(socket.AF_INET6)[0]
    address = start_two(folder, started, "--peer", own)
    assert address.startswith(f"[{own}]:")
    joined = ray_nodes(folder, "wait", address, "n1", "n2", "--timeout", "60")
    assert joined.returncode == 0, joined.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_that_cannot_start_says_why(short):
    folder, started = short
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        started.append(Node(folder, "n1", "--port", str(taken.getsockname()[1])))
        assert started[0].process.wait(120) == 1
    assert "error: Ray exited unexpectedly; its" in started[0].log.read_text()
    assert list((folder / "t").iterdir()) == []
