"""The doctor's command: a line for each check, all failures at once, and a real Ray cluster."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_cases import command

LINES = [
    "versions",
    "cluster",
    "Ray",
    "model",
    "data",
    "run directory",
    "disk",
    "memory",
    "shared memory",
    "write access",
    "Ray's files",
    "limits",
    "network",
    "CPUs",
    "collective",
]


@pytest.mark.cpu_stack
def test_everything_is_there(tiny_files, tmp_path):
    """A line for each check, in order; nothing is left behind."""
    done = command(tiny_files, tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = [line for line in done.stdout.splitlines() if not line.startswith("note  ")]
    assert [line.removeprefix("ok    ").split(":")[0] for line in lines] == LINES
    assert (
        "0.7 M parameters" in lines[3]
        and "validation.parquet" in lines[4]
        and "1 rank(s)" in lines[-1]
        and "the sums are correct" in lines[-1]
    )
    assert last == "all checks passed" and done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cpu_stack
def test_all_failures_at_once(tiny_files, tmp_path):
    """A cut-off model, a folder that cannot be written, open files and an interface: a sentence each, exit code 2."""
    shutil.copytree(tiny_files / "model", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = command(
        tiny_files,
        Path("/proc/runs"),
        f"model.path={tmp_path / 'model'}",
        "cluster.env.GLOO_SOCKET_IFNAME=nowhere0",
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000)),
    )
    assert done.returncode == 2
    sentences = done.stderr.splitlines()
    assert all(sentence.startswith("error: ") for sentence in sentences)
    for words in (
        "model.safetensors is not a complete safetensors file",
        "/proc is not writable",
        "disk: 0 MiB free at /proc",
        "open files: the limit is 1000, Ray needs 4096: run ulimit -n 4096",
        "GLOO_SOCKET_IFNAME=nowhere0: this machine only has ",
        "the collective failed on 1 of 1 ranks",
    ):
        assert sum(words in sentence for sentence in sentences) == 1, done.stderr
    failed = [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("FAIL")]
    names = ("model", "disk", "write access", "limits", "network", "collective")
    assert failed == [f"FAIL  {name}" for name in names]


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ray_clusters(tiny_files, tmp_path):
    """One node with two workers passes; three are too many; two are too many once somebody holds one."""
    address = _start_ray(tmp_path)
    try:
        one = f"cluster.ray_address='{address}'"
        done = command(tiny_files, tmp_path / "runs", one, "cluster.gpus_per_node=2")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ok    node " in done.stdout and "2 rank(s)" in done.stdout
        done = command(tiny_files, tmp_path / "runs", one, "cluster.nodes=3")
        assert done.returncode == 2
        assert f"the Ray cluster at {address} has 2 of 3 GPUs" in done.stderr
        holder = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import ray; ray.init('{address}'); a = ray.remote(num_gpus=1)(__import__('time').sleep)"
                ".remote(300); print('held', flush=True); ray.get(a)",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert holder.stdout.readline() == "held\n"
            done = command(tiny_files, tmp_path / "runs", one, "cluster.gpus_per_node=2")
            assert done.returncode == 2
            assert "but only 1 GPU(s)" in done.stderr, done.stderr
        finally:
            holder.kill()
            holder.communicate()
    finally:
        _stop_ray(tmp_path)


NODE: dict[Path, subprocess.Popen] = {}


def _start_ray(folder: Path) -> str:
    """A Ray head with two logical GPUs that ends with this process; returns its address."""
    code = (
        "import ray, sys; c = ray.init(num_gpus=2, num_cpus=16, include_dashboard=False, _node_ip_address='127.0.0.1');"
        "print(c.address_info['gcs_address'], flush=True); sys.stdin.read()"
    )
    NODE[folder] = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return NODE[folder].stdout.readline().strip()


def _stop_ray(folder: Path) -> None:
    NODE[folder].communicate(timeout=60)
