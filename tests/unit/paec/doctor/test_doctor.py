"""What the doctor finds: real full disks, limits, cut-off files, closed ports and lost ranks, each one sentence."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.paec.common import folder_kinds, folders, model_files, versions
from recipe.paec.common.console import GIB
from recipe.paec.common.repository import REPOSITORY
from recipe.paec.config import rules
from recipe.paec.doctor import cgroup, collective, examine, inputs, node_folders, node_limits, node_memory
from recipe.paec.plan import formulas, shapes

LINES = [
    "versions",
    "cluster",
    "Ray",
    "model and data",
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


BASE: list[DictConfig] = []
"""The quick start's configuration, composed once: it takes a second."""


@pytest.fixture
def tiny_config(compose, tiny_files, tmp_path, monkeypatch):
    """tiny_config(*overrides, root=folder) -> the quick start's resolved configuration, with single keys changed."""

    def make(*overrides: str, root: Path = tmp_path / "runs") -> DictConfig:
        monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
        if not BASE:
            BASE.append(compose())
        config = BASE[0].copy()
        with open_dict(config):
            for override in overrides:
                key, _, value = override.partition("=")
                OmegaConf.update(config, key, yaml.safe_load(value))
            config.run.root, config.run.directory = str(root), str(root / "tiny")
            config.trainer.default_local_dir = str(root / "tiny" / "checkpoints")
        return config

    return make


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(mebibytes) -> the folder of a file system of that size."""
    mounted = []

    def mount(mebibytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,nr_inodes=5k", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def command(tiny: Path, root: Path, *overrides: str, before=None, module="doctor", **env: str):
    return subprocess.run(
        [sys.executable, "-m", f"recipe.paec.{module}", f"run.root={root}", *overrides],
        env={**os.environ, "PAEC_TINY_DIR": str(tiny), **env},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        preexec_fn=before,
        timeout=300,
        check=False,
    )


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.cpu_stack
def test_everything_is_there(tiny_files, tmp_path):
    """A line for each check, in order; nothing is left behind."""
    done = command(tiny_files, tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = [line for line in done.stdout.splitlines() if not line.startswith("note  ")]
    assert [line.removeprefix("ok    ").split(":")[0] for line in lines] == LINES
    assert "0.7 M parameters" in lines[3] and "1 rank(s)" in lines[-1] and "the sums are correct" in lines[-1]
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
    names = ("model and data", "disk", "write access", "limits", "network", "collective")
    assert failed == [f"FAIL  {name}" for name in names]


@pytest.mark.cpu_stack
def test_training_begins_with_it(tiny_files, tmp_path):
    done = command(tiny_files, tmp_path / "runs", "cluster.num_cpus=3", module="train")
    assert done.returncode == 2 and "ok    versions: Python" in done.stdout
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: CPUs: Ray would offer 3, the run reserves 6")
    assert list(tmp_path.iterdir()) == []


# ---- memory, disk, shared memory -------------------------------------------------------------------------------------


def test_memory(tiny_config):
    """What was measured: 6.9 GiB with one worker, 10.4 with two; the model itself is small."""
    for workers, measured in ((1, 6.9), (2, 10.4)):
        need = formulas.host_memory(tiny_config(f"cluster.gpus_per_node={workers}"))
        assert measured * GIB <= need < (measured + 0.05) * GIB
    (problem,) = node_memory.memory(tiny_config("cluster.gpus_per_node=1000")).errors
    assert (
        "about 350" in problem
        and "GiB needed with 1000 worker(s)" in problem
        and "lower cluster.gpus_per_node" in problem
    )


def test_memory_of_the_control_group(tmp_path, monkeypatch):
    """The least of the limits from this process's group up to the root, in the layout that this machine has."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    (path, root) = next(
        (path.lstrip("/"), tmp_path / "memory" if controller else tmp_path)
        for _, controller, path in lines
        if controller in ("", "memory")
    )
    names = ("limit", "used") * 2
    monkeypatch.setattr(cgroup, "CGROUP", tmp_path)
    assert cgroup.cgroup_room("memory", *names) == float("inf")
    (root / path).mkdir(parents=True, exist_ok=True)
    for folder, limit, cache in ((root / path, "1000", 30), (root, "5000", 0)):
        (folder / "limit").write_text(f"{limit}\n")
        (folder / "used").write_text("400\n")
        (folder / "memory.stat").write_text(f"anon 7\ninactive_file {cache}\n")
    expected = 1000 - 400 + 30 if path else 5000 - 400
    assert cgroup.cgroup_room("memory", *names) == expected
    (root / path / "limit").write_text("max\n")
    assert cgroup.cgroup_room("memory", *names) == (5000 - 400 if path else float("inf"))


def test_disk(tiny_config, tiny_files, small_disk):
    """Four checkpoints of 12 bytes per parameter and their other files, the export, the logs."""
    parameters = shapes.parameter_count(str(tiny_files / "model"))
    each = 12 * parameters + formulas.CHECKPOINT_REST
    assert formulas.checkpoint_bytes(tiny_config(), parameters) == each
    need = 4 * each + 4 * parameters + examine.OTHER_FILES
    folder = small_disk(900)
    check = examine.storage(tiny_config(root=folder))
    (problem,) = check.errors
    assert problem.startswith(f"disk: 0.9 GiB free at {folder}, {need / GIB:.1f} GiB needed (4 checkpoint(s) of 40 MiB")
    assert "lower run.keep_checkpoints" in problem
    assert examine.storage(tiny_config(root=small_disk(1200))).errors == ()


def test_disk_counts_what_is_there(tiny_config, small_disk):
    folder = small_disk(1200)
    config = tiny_config(root=folder)
    checkpoint = Path(config.trainer.default_local_dir) / "global_step_10" / "actor"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.pt").write_bytes(bytes(110 * 2**20))
    assert examine.storage(config).errors == ()  # it counts for the checkpoints that it makes unnecessary
    (folder / "other").write_bytes(bytes(110 * 2**20))
    assert len(examine.storage(config).errors) == 1


def test_disk_without_room_for_files(tiny_config, small_disk):
    folder = small_disk(2000)
    for i in range(4500):
        (folder / str(i)).touch()
    (problem,) = examine.storage(tiny_config(root=folder)).errors
    assert "more files, 1000 needed" in problem


@pytest.mark.parametrize(
    "overrides, count",
    [
        ([], 4),
        (["run.keep_best=0"], 3),
        (["run.keep_checkpoints=5"], 4),
        (["trainer.total_training_steps=15"], 2),
        (["trainer.save_freq=-1"], 0),
    ],
)
def test_checkpoints_at_once(tiny_config, overrides, count):
    """40 steps and one checkpoint every 10 in the quick start, which keeps the newest 2 and the best."""
    assert examine.saves_to_come(tiny_config(*overrides)) == count


def test_small_shared_memory(tiny_config, small_disk, monkeypatch):
    monkeypatch.setattr(node_folders, "SHM", small_disk(64))
    (problem,) = node_folders.shared_memory(tiny_config()).errors
    assert problem.startswith("shared memory: 64 MiB free in ") and "0.1 GiB needed" in problem
    assert "docker run --shm-size=16g" in problem
    monkeypatch.setattr(node_folders, "SHM", small_disk(300))
    check = node_folders.shared_memory(tiny_config())
    assert check.errors == () and any("but Ray needs" in note for note in check.notes)


def test_segments_of_killed_processes():
    """A segment in use is nobody's rubbish; the same one is, when its process was killed."""
    code = (
        "from multiprocessing import shared_memory\n"
        "segment = shared_memory.SharedMemory(create=True, size=5000)\n"
        "print(segment.name, flush=True)\n"
        "import os, signal, sys\n"
        "from multiprocessing import resource_tracker\n"
        "os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)\n"  # with it, the segment would go too
        "sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    segment = node_folders.SHM / owner.stdout.readline().strip()
    try:
        assert segment.name.startswith("psm_")
        os.utime(segment, (time.time() - 3600,) * 2)
        assert segment not in node_folders.leftover_segments()
        owner.kill()
        owner.wait()
        assert segment in node_folders.leftover_segments()
        os.utime(segment)
        assert segment not in node_folders.leftover_segments()  # it may be about to be used
    finally:
        owner.kill()
        owner.communicate()
        segment.unlink()


def test_folder_of_rays_files(tiny_config, small_disk, monkeypatch):
    folder = small_disk(100)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (problem,) = node_folders.scratch(tiny_config()).errors
    assert problem.startswith(f"{folder}: 100 MiB free for Ray's logs and objects, 2.0 GiB needed")
    (folder / "full").write_bytes(bytes(97 * 2**20))
    (problem,) = node_folders.scratch(tiny_config()).errors
    assert (
        f"{folder}: its file system is 97% full, and Ray stores nothing there above 95%: free" in problem
        and "RAY_TMPDIR" in problem
    )
    monkeypatch.setenv("RAY_TMPDIR", str(folder / "nowhere"))
    (problem,) = node_folders.scratch(tiny_config()).errors
    assert "the folder for Ray's files does not exist" in problem


# ---- limits and network ----------------------------------------------------------------------------------------------


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


@pytest.fixture
def closed_port():
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        yield stream.getsockname()[1]


def test_ray_addresses(tiny_config, closed_port, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert examine.ray_address(tiny_config()).errors == ()
    nobody = f"127.0.0.1:{closed_port}"
    (problem,) = examine.ray_address(tiny_config(f"cluster.ray_address={nobody}")).errors
    assert problem.startswith(f"cluster.ray_address={nobody}: nothing answers there (Connection refused)")
    (problem,) = examine.ray_address(tiny_config("cluster.ray_address=head")).errors
    assert problem.startswith("cluster.ray_address=head: ") and "HOST:PORT" in problem
    (problem,) = examine.ray_address(tiny_config("cluster.ray_address=auto")).errors
    assert "neither RAY_ADDRESS nor " in problem
    (problem,) = examine.ray_address(tiny_config("cluster.nodes=2")).errors
    assert "cluster.nodes=2: several nodes need a running Ray cluster:" in problem
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(nobody)
    (problem,) = examine.ray_address(tiny_config()).errors
    assert f"makes Ray join {nobody}, but cluster.ray_address is null" in problem
    (problem,) = examine.ray_address(tiny_config("cluster.ray_address=auto")).errors
    assert problem.startswith(f"cluster.ray_address={nobody}: nothing answers")
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    (problem,) = examine.ray_address(tiny_config()).errors
    assert problem.startswith(f"RAY_ADDRESS={nobody} makes Ray join that cluster")
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_port = f"127.0.0.1:{server.getsockname()[1]}"
        assert examine.ray_address(tiny_config(f"cluster.ray_address={open_port}")).errors == ()


def test_run_directory_in_use(tiny_config):
    config = tiny_config()
    assert examine.run_directory(config).errors == ()
    held = folders.lock(Path(config.run.directory), folder_kinds.RUN)
    (problem,) = examine.run_directory(config).errors
    assert problem.startswith(f"{config.run.directory} is in use by another run")
    held.close()
    assert examine.run_directory(config).errors == ()
    (Path(config.run.directory) / "thesis.tex").touch()
    (problem,) = examine.run_directory(config).errors
    assert problem == f"{config.run.directory} contains thesis.tex but no run: choose another run.name"


# ---- GPUs ------------------------------------------------------------------------------------------------------------


def test_gpu_memory(compose, tmp_path, monkeypatch):
    """A stand-in for nvidia-smi: two GPUs of 80 GiB, the second half full."""
    stand_in = tmp_path / "nvidia-smi"
    stand_in.write_text("#!/bin/sh\necho '0, GPU-aa, 81920, 81000'\necho '1, GPU-bb, 81920, 41000'\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    config = compose("experiment=qwen7b")
    (problem,) = node_memory.gpu_memory(config, 8).errors
    assert problem.startswith("GPU 1: 40.0 GiB of 80.0 GiB are free, 60.6 GiB are needed (recipe.paec.plan)")
    assert node_memory.gpu_memory(config, 1).errors == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    assert len(node_memory.gpu_memory(config, 1).errors) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    lora = compose("experiment=qwen7b", "lora.rank=8")
    assert node_memory.gpu_memory(lora, 1).errors == ()  # not planned: vLLM's share alone
    large = compose("experiment=qwen7b", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=200000")
    (note,) = node_memory.gpu_memory(large, 1).notes
    assert "python -m recipe.paec.plan" in note


# ---- the collective --------------------------------------------------------------------------------------------------


def test_collective_of_two_processes(tiny_config):
    (check,) = collective.Collective(tiny_config("cluster.gpus_per_node=2")).result()
    assert check.errors == () and check.found.startswith("2 rank(s), ")


def test_collective_names_the_interface(tiny_config):
    config = tiny_config("cluster.gpus_per_node=2", "cluster.env.GLOO_SOCKET_IFNAME=nowhere0")
    (check,) = collective.Collective(config).result()
    (problem,) = check.errors
    assert problem.startswith("the collective failed on 2 of 2 ranks") and "GLOO_SOCKET_IFNAME=nowhere0" in problem


def test_collective_does_not_wait_for_ever(tmp_path):
    started = time.monotonic()
    with pytest.raises(RuntimeError):
        collective.all_reduce(0, 2, f"file://{tmp_path / 'store'}", "cpu", seconds=2)
    assert time.monotonic() - started < 20
    assert not torch.distributed.is_initialized()


def test_collective_that_hangs(tiny_config):
    """The process itself hangs."""
    running = collective.Collective(tiny_config())
    os.kill(running._process.pid, signal.SIGSTOP)
    (check,) = running.result(limit=1)
    assert "the collective over all ranks did not finish within 1 s: set the interface" in check.errors[0]
    assert running._process.poll() is not None


def test_room_on_a_cluster():
    def node(gpus, cpus, alive=True):
        return {"Alive": alive, "Resources": {"GPU": gpus, "CPU": cpus}}

    assert collective.places([node(8, 64), node(8, 64)], 8, 24) == 2
    assert collective.places([node(8, 23), node(8, 64, alive=False)], 8, 24) == 0
    assert collective.places([node(2, 6), node(1, 64)], 1, 3) == 3


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


# ---- the model -------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tiny_files, tmp_path):
    shutil.copytree(tiny_files / "model", tmp_path / "model")
    return tmp_path / "model"


def changed(file: Path, **fields) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def sharded(model: Path) -> dict[str, str]:
    """The model's weights in two files with an index; the index."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    index = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, model / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (model / "model.safetensors").unlink()
    (model / model_files.INDEX).write_text(json.dumps({"weight_map": index}))
    return index


def test_parameters_of_one_file_and_of_several(model, tiny_files):
    count = shapes.parameter_count(str(model))
    content = model_files.read_config(model)
    assert count == shapes.read_shape(content).parameters
    sharded(model)
    assert shapes.parameter_count(str(model)) == count
    assert model_files.file_errors(model, "m") == []


def test_lost_shard(model, tiny_config):
    sharded(model)
    (model / "model-00002-of-00002.safetensors").unlink()
    (problem,) = inputs.check_model(tiny_config(f"model.path={model}"))
    assert f"model.path={model}: 1 of the 2 weight files in {model_files.INDEX} are missing (model-00002" in problem


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x00" * 64])
def test_invalid_weights(model, content):
    (model / "model.safetensors").write_bytes(content)
    (problem,) = model_files.file_errors(model, "m")
    assert (
        problem.startswith("m: model.safetensors is not a complete safetensors file")
        and "download the model again" in problem
    )


def test_pickled_weights_alone(model):
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    (problem,) = model_files.file_errors(model, "m")
    assert "its weights are pickles (*.bin), and loading them can execute arbitrary code:" in problem


@pytest.mark.parametrize(
    "file, fields, words",
    [
        ("config.json", {"vocab_size": 300}, "259 tokens, the model's embedding 300 rows"),
        ("config.json", {"vocab_size": 200}, "259 tokens, the model's embedding only 200 rows"),
        ("config.json", {"num_attention_heads": 8, "head_dim": None}, "16 wide, vLLM on cluster=cpu needs at least 32"),
        ("config.json", {"max_position_embeddings": 90}, "= 96 exceeds the model's context of 90 tokens (/"),
        ("tokenizer_config.json", {"eos_token": None}, "the tokenizer has no eos_token"),
    ],
)
def test_model_that_does_not_fit(model, tiny_config, file, fields, words):
    changed(model / file, **fields)
    (problem,) = inputs.check_inputs(tiny_config(f"model.path={model}", "model.context_length=0"))
    assert words in problem


def test_gpus_allow_a_padded_vocabulary(model, compose, tiny_files, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    changed(model / "config.json", vocab_size=300, num_attention_heads=8)
    config = compose("cluster=gpu_1x8", f"model.path={model}")
    assert inputs.check_inputs(config) == []


@pytest.mark.parametrize(
    "content, length",
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({}, None),
        ({"max_position_embeddings": 32768, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 131072),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192),
    ],
)
def test_context_as_vllm_derives_it(content, length):
    assert model_files.context_length(content) == length


def test_token_budget(tiny_config):
    for key in ("actor.ppo_max_token_len_per_gpu", "rollout.log_prob_max_token_len_per_gpu"):
        (problem,) = rules.check_config(tiny_config(f"actor_rollout_ref.{key}=95"))
        assert problem.startswith(f"actor_rollout_ref.{key} x cluster.sequence_parallel = 95 is less than prompt")
        assert rules.check_config(tiny_config(f"actor_rollout_ref.{key}=96")) == []


# ---- what the numbers rest on ----------------------------------------------------------------------------------------


def test_python_outside_the_pin(monkeypatch):
    monkeypatch.setattr(versions.sys, "version_info", (3, 9, 18))
    (problem,) = versions.pin_errors()
    assert problem.startswith("Python 3.9.18 is running, but >=3.10,<3.13 is required")


def test_cpus_that_verl_reserves():
    source = Path(importlib.util.find_spec("verl").origin).parent / "single_controller" / "ray" / "base.py"
    assert f"max_colocate_count: int = {node_limits.COLOCATED}\n" in source.read_text()
