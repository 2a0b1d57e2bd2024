"""Open files, processes, interfaces and CPUs of a node."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from recipe.paec.doctor import node_limits


def test_clusters_need_more_open_files(tiny_config):
    code = (
        "import resource, sys; from omegaconf import OmegaConf; from recipe.paec.doctor import node_limits\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 20000))\n"
        "print(*node_limits.limits(OmegaConf.create(sys.stdin.read())).errors)"
    )
    for nodes, words in ((4, ""), (5, "open files: the limit is 20000, Ray needs 20480: run ulimit -n 20480")):
        config = OmegaConf.to_yaml(tiny_config(f"cluster.nodes={nodes}"))
        done = subprocess.run([sys.executable, "-c", code], input=config, capture_output=True, text=True, check=True)
        assert words in done.stdout and (words or done.stdout == "\n"), done.stdout


def test_too_few_processes(tiny_config):
    (problem,) = node_limits.limits(tiny_config("cluster.gpus_per_node=10000000")).errors
    assert problem.startswith("processes: ") and "docker run --pids-limit" in problem


@pytest.mark.parametrize(
    "name, wanted, good",
    [
        ("GLOO_SOCKET_IFNAME", "eth0", True),
        ("GLOO_SOCKET_IFNAME", "eth", False),
        ("GLOO_SOCKET_IFNAME", "eth0,ib7", False),
        ("NCCL_SOCKET_IFNAME", "eth", True),
        ("NCCL_SOCKET_IFNAME", "=eth", False),
        ("NCCL_SOCKET_IFNAME", "=eth0", True),
        ("NCCL_SOCKET_IFNAME", "ib,eth", True),
        ("NCCL_SOCKET_IFNAME", "^docker,lo", True),
        ("NCCL_SOCKET_IFNAME", "^eth,lo", False),
    ],
)
def test_names_of_interfaces(name, wanted, good):
    assert node_limits._matches(wanted, name, ["lo", "eth0"]) is good


def test_host_name_that_leads_nowhere(tiny_config):
    """In a UTS namespace of its own, where the host has another name."""
    code = (
        "import sys; from omegaconf import OmegaConf; from recipe.paec.doctor import node_limits\n"
        "print(*node_limits.interfaces(OmegaConf.create(sys.stdin.read())).errors)"
    )
    config = tiny_config()
    with open_dict(config):
        del config.cluster.env["GLOO_SOCKET_IFNAME"]
    done = subprocess.run(
        ["unshare", "--uts", "sh", "-c", 'hostname nowhere.invalid && exec "$@"', "sh", sys.executable, "-c", code],
        input=OmegaConf.to_yaml(config),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"namespaces are not permitted here: {done.stderr.strip()}")
    assert "the host name nowhere.invalid cannot be resolved" in done.stdout, done.stderr
    assert "set GLOO_SOCKET_IFNAME" in done.stdout


def test_cpus_of_the_machine_and_those_that_ray_is_told(tiny_config, monkeypatch):
    monkeypatch.setattr(node_limits.os, "cpu_count", lambda: 2)
    monkeypatch.setenv("RAY_USE_MULTIPROCESSING_CPU_COUNT", "1")  # without the limits of a container
    told = node_limits.cpus(tiny_config("cluster.num_cpus=16"))
    assert told.errors == () and told.found == (
        "this machine has 2; Ray is told 16 (cluster.num_cpus), of which the run's processes reserve 6"
    )
    counted = node_limits.cpus(tiny_config("cluster.num_cpus=null"))
    assert counted.found == "this machine has 2; Ray counts 2, of which the run's processes reserve 6"
    assert counted.errors[0].endswith("would hang: set cluster.num_cpus=6")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs a machine with more CPUs than the quota")
def test_cpus_of_a_container(tiny_config):
    """Ray counts those of the quota, one and a half rounded down, not those of the machine."""
    config = tiny_config("cluster.num_cpus=null")
    code = (
        "import sys; from omegaconf import OmegaConf; from recipe.paec.doctor import node_limits; "
        "print(node_limits.cpus(OmegaConf.create(sys.stdin.read())).found)"
    )
    quota = "mount -t tmpfs tmpfs /sys/fs/cgroup && echo 150000 100000 > /sys/fs/cgroup/cpu.max"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{quota} && exec "$@"', "sh", sys.executable, "-c", code],
        input=OmegaConf.to_yaml(config),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"namespaces are not permitted here: {done.stderr.strip()}")
    words = f"this machine has {os.cpu_count()}; Ray counts 1, of which the run's processes reserve 6"
    assert done.stdout == f"{words}\n", done.stderr


def test_cpus_that_verl_reserves():
    source = Path(importlib.util.find_spec("verl").origin).parent / "single_controller" / "ray" / "base.py"
    assert f"max_colocate_count: int = {node_limits.COLOCATED}\n" in source.read_text()


def test_room_on_a_cluster():
    """verl's groups of GPUs stay on one node each, beside the queue, which is there first."""

    def node(gpus, cpus, alive=True):
        return {"Alive": alive, "Resources": {"GPU": gpus, "CPU": cpus}}

    two = [node(8, 30), node(8, 30)]
    assert node_limits.has_room(two, [8, 8], 6) and not node_limits.has_room(two, [8, 8], 7)
    assert not node_limits.has_room([node(8, 64), node(8, 64, alive=False)], [8, 8], 0)
    assert node_limits.has_room([node(2, 6), node(1, 64)], [1, 1, 1], 0)
    assert not node_limits.has_room(two, [8, 8, 1], 0), "a third node, for the rollout of mode=separate_async"
    assert node_limits.has_room([node(8, 64), node(2, 64)], [2, 8], 0), "the small group leaves the large node"
    assert not node_limits.has_room([{"Alive": True, "Resources": {}}], [1], 0)


def test_the_queue_spreads_over_the_nodes(tiny_config):
    config = tiny_config("transfer_queue.backend.SimpleStorage.num_data_storage_units=8")
    assert [node_limits.queue_cpus(config, nodes) for nodes in (1, 2, 3, 8, 9)] == [10, 6, 5, 3, 3]
