"""The real pipeline under faults: processes killed, a full disk, files cut off, a weight sync that fails, SIGTERM.

One run goes through all of them in turn. After each it is started again, and resumes from its last checkpoint; what is
lost are the steps since. A fault must end the run with a sentence, without a process left, in a minute.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pipeline_runs import descendants, finish, records, start, wait_for

from recipe.paec.common.records import METRICS_FILE
from recipe.paec.run.log import truncate_metrics

pytestmark = [pytest.mark.pipeline, pytest.mark.slow, pytest.mark.timeout(1500)]

LIGHT = ("cluster.env.OMP_NUM_THREADS=1", "trainer.val_before_train=false", "run.export=false", "method.anchor_steps=2")
A_MINUTE = 60
"""Seconds from a fault to the end of the run, all processes gone."""


class Run:
    """One run directory, started again and again."""

    def __init__(self, tiny: Path, root: Path):
        self.tiny, self.root = tiny, root
        self.directory = root / "faults"
        self.directory.mkdir(parents=True)

    def start(self, *overrides: str) -> subprocess.Popen:
        # What a fault has cut off is done again; so is its line here, and nobody may take the old one for the new.
        if (self.directory / METRICS_FILE).is_file():
            truncate_metrics(self.directory / METRICS_FILE, self.checkpoint())
        overrides = (*LIGHT, "run.name=faults", "trainer.total_training_steps=1000", *overrides)
        return start(self.tiny, self.root, *overrides)

    def wait_for_step(self, process: subprocess.Popen, step: int) -> None:
        wait_for(lambda: any(record["step"] == step for record in records(self.directory)), process)

    def checkpoint(self) -> int:
        """Step of the newest complete checkpoint, 0 if there is none."""
        states = self.directory.glob("checkpoints/global_*/paec_state.json")
        return max((json.loads(file.read_text())["step"] for file in states), default=0)

    def fault(self, kind, *overrides: str) -> tuple[str, float]:
        """Start, do `kind` after the next step, wait for the end; output and seconds from the fault to the end."""
        process = self.start(*overrides)
        try:
            self.wait_for_step(process, self.checkpoint() + 1)
            family = descendants(process.pid)
            kind(family)
            begun = time.monotonic()
            output = finish(process)
        finally:
            process.kill()  # of a test that failed; the next one needs the directory
        seconds = time.monotonic() - begun
        assert process.returncode == 2, output
        _, left = psutil.wait_procs(family, timeout=20)
        assert [p.name() for p in left] == []
        return output, seconds


def kill(*names: str):
    """SIGKILL the first process whose title begins with one of `names`."""

    def kind(family: list[psutil.Process]) -> None:
        found = [p for p in family if p.is_running() and " ".join(p.cmdline()).startswith(names)]
        assert found, sorted({" ".join(p.cmdline())[:60] for p in family if p.is_running()})
        found[0].kill()

    return kind


def error(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if line.startswith("error:"))


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Run:
    return Run(tiny, tmp_path_factory.mktemp("runs"))


def test_sigterm_saves_and_ends(run):
    """The step that runs is finished and saved, wherever save_freq falls; nothing is left, and the exit code is 143."""
    process = run.start("trainer.save_freq=100")
    run.wait_for_step(process, 2)
    family = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    assert process.returncode == 143, output
    step = run.checkpoint()
    assert step >= 3 and [record["step"] for record in records(run.directory)] == list(range(1, step + 1))
    assert f"stopped after step {step} of 1000, as requested" in output
    assert [p.name() for p in psutil.wait_procs(family, timeout=20)[1]] == []
    state = json.loads((run.directory / "checkpoints" / f"global_step_{step}" / "paec_state.json").read_text())
    assert len(state["methods"]["paec"]["observations"]) == 2


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("ray::RewardLoopWorker",), "RewardLoopWorker"),
        (("VLLM::EngineCore",), "a vLLM engine or a grader has died|EngineCore"),
        (("ray::WorkerDict", "ray::ActorRollout"), "WorkerDict"),
        (("ray::SeededAgentLoopWorker",), "AgentLoopWorker"),
    ],
)
def test_sigkill_of_a_worker(run, names, sentence):
    before = run.checkpoint()
    output, seconds = run.fault(kill(*names))
    assert f"after step {before} of 1000" in output
    assert re.search(sentence, error(output)), output
    assert seconds < A_MINUTE
    assert run.checkpoint() >= before


@pytest.mark.parametrize(
    ("server", "sentence", "most"),
    [("raylet", "it was killed", A_MINUTE), ("gcs_server", "its gcs_server was killed", 45)],
)
def test_sigkill_of_the_nodes_ray(run, server, sentence, most):
    """Ray itself would wait for a gcs_server for a minute."""
    output, seconds = run.fault(lambda family: next(p for p in family if p.name() == server).kill())
    assert f"Ray on this node has ended: {sentence}, or ran out of memory" in error(output), output
    assert seconds < most, output


def test_a_weight_sync_that_fails(run, tmp_path, monkeypatch):
    """A vLLM worker that raises while it takes the second weights."""
    (tmp_path / "sitecustomize.py").write_text(BROKEN_RECEIVER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    process = run.start()
    heartbeat = run.directory / "heartbeat.json"
    wait_for(lambda: heartbeat.is_file() and '"weight sync"' in heartbeat.read_text(), process)
    begun = time.monotonic()
    output = finish(process)
    assert process.returncode == 2 and time.monotonic() - begun < A_MINUTE, output
    assert "WeightSyncFailed: vLLM replica 0 did not load the actor's weights" in error(output)
    assert "planted: these weights do not fit" in (run.directory / "train.log").read_text()


BROKEN_RECEIVER = """
import importlib.abc, importlib.util, sys

NAME = "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"


class Break(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            receive, calls = module.BucketedWeightReceiver.receive_weights, []

            def broken(self, on_bucket_received):
                calls.append(1)
                if len(calls) < 2:
                    return receive(self, on_bucket_received)

                def fail(weights, is_last):
                    raise RuntimeError("planted: these weights do not fit")

                return receive(self, fail)

            module.BucketedWeightReceiver.receive_weights = broken

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Break())
"""


def test_a_checkpoint_that_was_cut_off(run):
    """The newest checkpoint's shard has lost its end: the one before is used, and the damaged one is kept aside."""
    process = run.start("trainer.save_freq=1")
    first = run.checkpoint()
    wait_for(lambda: run.checkpoint() >= first + 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    newest = run.checkpoint()
    shard = run.directory / "checkpoints" / f"global_step_{newest}" / "actor" / "model_world_size_1_rank_0.pt"
    os.truncate(shard, 1000)
    process = run.start()
    run.wait_for_step(process, newest + 1)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    assert f"global_step_{newest} is damaged: actor/model_world_size_1_rank_0.pt has 1000 bytes" in output
    assert f"after step {newest - 1} of 1000" in output
    assert (run.directory / "checkpoints" / f"damaged_global_step_{newest}").is_dir()


def test_a_full_disk(run, tmp_path):
    """The disk fills up beside a run: one sentence, and the checkpoint before is used when there is room again."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no permission to mount a small disk")
    try:
        on_small = Run(run.tiny, small)
        process = on_small.start("trainer.save_freq=1")
        wait_for(lambda: on_small.checkpoint() >= 1, process)
        filler = small / "filler"
        with open(filler, "wb", buffering=0) as stream, suppress(OSError):
            while shutil.disk_usage(small).free > 2 << 20:  # less than a checkpoint
                stream.write(bytes(1 << 20))
        output = finish(process)
        assert process.returncode == 2, output
        assert f"the disk of {on_small.directory} is full" in error(output), output
        last = on_small.checkpoint()
        assert last >= 1
        filler.unlink()
        process = on_small.start("trainer.save_freq=100")
        on_small.wait_for_step(process, last + 2)  # the launcher has seen the one before
        process.send_signal(signal.SIGTERM)
        assert f"after step {last} of 1000" in finish(process)
        assert on_small.checkpoint() > last
    finally:
        process.kill()
        subprocess.run(["umount", "--lazy", str(small)], check=True)
