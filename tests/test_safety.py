"""No secret in a file, no port beyond this machine, and no code out of data: the code itself and a real run."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from checkpoint_worker import Canary
from omegaconf import OmegaConf
from pipeline_runs import REPOSITORY, finish, run_directory, start
from planted_secrets import PLANTED
from transformers import AutoModelForCausalLM

from data_prep import tiny_model
from recipe.paec.common import secrets


def test_remote_code_is_off(compose):
    config = OmegaConf.to_container(compose())
    found = {key: value for key, value in secrets._leaves(config) if key.endswith("trust_remote_code")}
    assert len(found) >= 3 and not any(found.values()), found


@pytest.mark.parametrize("folder", ["recipe", "data_prep"])
def test_every_model_is_loaded_without_its_code(folder):
    calls = 0
    for path in (REPOSITORY / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if re.match(r"Auto\w+\.from_(pretrained|config)$", name):
                calls += 1
                assert keywords.get("trust_remote_code") == "False", f"{path}:{node.lineno}"
            assert name not in ("pickle.load", "pickle.loads"), f"{path}:{node.lineno}"
            assert name != "torch.load" or keywords.get("weights_only") == "True", f"{path}:{node.lineno}"
    assert calls >= 2


def test_a_pickled_model_is_not_executed(tmp_path):
    """pytorch_model.bin is read as tensors only, by transformers itself."""
    folder, canary = tmp_path / "model", tmp_path / "canary"
    tiny_model.build(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Canary(canary)}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="[Ww]eights.only|weights_only"):
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    assert not canary.exists()


ADDRESSES = ("127.", "::1", "::ffff:127.")
OPEN = ("ray::WorkerDict",)
"""Processes with a port on every interface, and why: docs/safety.md (torch's TCPStore)."""


def looked_at(process: subprocess.Popen) -> dict:
    """What anybody on this machine and its network could see of a process tree, until it ends."""
    seen: dict = {"ports": set(), "command_lines": set(), "with_secrets": set(), "output": ""}

    def look() -> None:
        for member in psutil.Process(process.pid).children(recursive=True):
            try:
                name = member.name()
                seen["command_lines"].add(" ".join(member.cmdline()))
                if all(member.environ().get(key) == value for key, value in PLANTED.items()):
                    seen["with_secrets"].add(name)
                for connection in member.net_connections(kind="inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        seen["ports"].add((name, connection.laddr.ip, connection.laddr.port))
            except psutil.Error:
                continue

    deadline = time.monotonic() + 900
    try:
        while process.poll() is None:
            assert time.monotonic() < deadline, "the run is too slow"
            try:
                look()
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
        seen["output"] = finish(process)
    finally:
        process.terminate()
    return seen


@pytest.fixture(scope="module")
def watched(tiny, tmp_path_factory) -> Iterator[dict]:
    """Two steps of training, then an evaluation of the result, with planted secrets, looked at meanwhile."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PLANTED.items():
            patch.setenv(name, value)
        short = ["trainer.total_training_steps=2", "trainer.save_freq=2", "trainer.test_freq=2"]
        training = looked_at(start(tiny, root, *short, "trainer.val_before_train=false"))
        run = run_directory(root)
        command = [sys.executable, "-m", "recipe.paec.evaluate", f"model={run}", "steps=[2]", "protocol=tiny"]
        command += [f"benchmarks=[{tiny / 'data' / 'validation.parquet'}]", "protocol.samples=1"]
        evaluation = looked_at(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY)
        )
        yield {"run": run, "root": root, "training": training, "evaluation": evaluation}


def ray_sessions(seen: dict) -> set[Path]:
    """Folders of the Ray sessions of a process tree."""
    return {Path(found) for line in seen["command_lines"] for found in re.findall(r"--log_dir=(\S+)/logs", line)}


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_secret_is_nowhere(watched):
    """Not in the output, any file of the run and the evaluation, Ray's own logs, or a command line; yet it is used."""
    assert (watched["run"] / "huggingface" / "README.md").is_file(), watched["training"]["output"]
    assert list(watched["run"].rglob("scores.json")), watched["evaluation"]["output"]
    searched = 0
    for seen in (watched["training"], watched["evaluation"]):
        text = seen["output"] + "\n".join(seen["command_lines"])
        (session,) = ray_sessions(seen)
        for file in [*watched["root"].rglob("*"), *session.rglob("*")]:
            if file.is_file():
                searched += 1
                content = file.read_bytes()
                for value in PLANTED.values():
                    assert value.encode() not in content, file
        assert not any(value in text for value in PLANTED.values())
    assert searched > 100
    workers = watched["training"]["with_secrets"]
    for name in ("ray::SeededAgentLoopWorker", "ray::WorkerDict", "ray::GroupServer"):
        assert any(worker.startswith(name) for worker in workers), workers


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_ports_are_on_the_loopback_interface(watched):
    for seen in (watched["training"], watched["evaluation"]):
        assert len(seen["ports"]) > 5
        beyond = {port for port in seen["ports"] if not port[1].startswith(ADDRESSES)}
        assert all(name.startswith(OPEN) for name, _, _ in beyond), beyond
        assert not [port for port in seen["ports"] if port[2] in (8265, 10001)], "Ray's dashboard or client"
    # Ray renames a worker after what it runs, so one port is seen under several names.
    assert len({port for _, address, port in watched["training"]["ports"] if not address.startswith(ADDRESSES)}) <= 1


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_planted_checkpoint_is_refused(watched, tiny, tmp_path):
    """A shard that would create a file when unpickled: one sentence, no file."""
    canary = tmp_path / "canary"
    (run,) = (path for path in watched["root"].iterdir() if path.is_dir())
    root = tmp_path / "runs"
    shutil.copytree(run, root / run.name)
    (shard,) = (root / run.name).glob("checkpoints/global_step_2/actor/optim_*.pt")
    torch.save({"state": Canary(canary)}, shard)
    output = finish(start(tiny, root, "trainer.total_training_steps=3", f"run.name={run.name}"))
    assert "a file contains something other than tensors" in output
    assert len([line for line in output.splitlines() if line.startswith("error: ")]) == 2  # the second names the log
    assert not canary.exists()
