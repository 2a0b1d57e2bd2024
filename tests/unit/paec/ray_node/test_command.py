"""Two Ray nodes on this machine, a training over them, and a node that cannot start."""

from __future__ import annotations

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
from node_cases import addresses

from recipe.paec.ray_node import node as ray_node_node
from recipe.paec.ray_node.addresses import host_of

REPOSITORY = Path(__file__).resolve().parents[4]


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
