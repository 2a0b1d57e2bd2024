"""launch/grid.sh with the tiny experiment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import psutil
import pytest
from pipeline_runs import REPOSITORY, descendants, finish, records, wait_for

from recipe.paec.grid import command
from recipe.paec.grid.table import PLAIN

PIPELINE = ("trainer.total_training_steps=3", "trainer.save_freq=1", "trainer.test_freq=3", "run.export=false")
LIGHT = ("actor_rollout_ref.rollout.val_kwargs.n=2", "data.val_max_samples=16", "cluster.env.OMP_NUM_THREADS=1")


@pytest.mark.slow
@pytest.mark.pipeline
@pytest.mark.timeout(3600)
def test_a_comparison_killed_twice(tiny, tmp_path):
    """launch/grid.sh on the tiny model, two methods, two seeds: SIGTERM in the first run, SIGKILL in the second."""

    def start() -> subprocess.Popen:
        words = ["bash", "launch/grid.sh", "METHODS=none paec", "SEEDS=1 2", "GRID=g", f"run.root={tmp_path}"]
        env = {**os.environ, "PAEC_TINY_DIR": str(tiny), "PAEC_TINY_ARGS": "--steps 240"}
        pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return subprocess.Popen([*words, *PIPELINE, *LIGHT], cwd=REPOSITORY, env=env, **pipe)

    def steps(name: str) -> list[int]:
        return [record["step"] for folder in tmp_path.glob(f"*-{name}") for record in records(folder)]

    def kill(number: int, name: str, step: int) -> str:
        def shown() -> bool:  # the metrics are there a moment before the launcher knows of the step
            return any(f"step    {step}/3" in log.read_text() for log in tmp_path.glob(f"g/*{name}.log"))

        process = start()
        try:
            wait_for(shown, 900, process)
            family = descendants(process.pid)
            process.send_signal(number)
            output = finish(process)
        finally:
            process.kill()
        _, left = psutil.wait_procs(family, timeout=180)  # Ray's agents wait a minute for their head
        assert [p.name() for p in left] == []
        assert process.returncode == (143 if number == signal.SIGTERM else -number), output
        return output

    output = kill(signal.SIGTERM, "none*-seed1", 1)
    assert re.search("stopped after step [12] of 3, as requested", output), output
    assert re.search(r"\* none, seed 1: at step [12] of 3", output)
    assert "stopped by SIGTERM; the same command resumes" in output
    output = kill(signal.SIGKILL, "paec*-seed1", 2)
    assert re.search("resuming tiny_cpu-none.*-seed1 after step [12] of 3", output)
    process = start()
    output, _ = process.communicate(timeout=2400)
    assert process.returncode == 0, output
    assert "4 runs of tiny_cpu, 1 of them done" in output and "Not in the table" not in output
    assert re.search("resuming tiny_cpu-paec.*-seed1 after step [12] of 3", output)
    for label in ("none", "paec"):
        for seed in (1, 2):
            assert steps(f"{label}*-seed{seed}") == [0, 1, 2, 3]
    table = json.loads((tmp_path / "g" / "table.json").read_text())
    for method in table["methods"]:
        assert method["seeds"] == [1, 2]
        (source,) = method["accuracy"]
        for estimate in [*method["accuracy"][source].values(), *(method[key] for key in PLAIN)]:
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert set(method["accuracy"][source]) == {"avg@2", "maj@2", "pass@1", "pass@2"}
        runs = [run["values"] for run in table["runs"] if run["label"] == method["label"]]
        assert method["entropy"]["value"] == pytest.approx(sum(run["entropy"] for run in runs) / 2) and len(runs) == 2
    again = start()
    assert "4 runs of tiny_cpu, 4 of them done" in finish(again) and again.returncode == 0


def test_a_folder_that_cannot_be_written_is_one_sentence(tiny_files, monkeypatch, capsys):
    """/sys takes no folder, not even of root."""
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    monkeypatch.setattr("sys.argv", ["grid", "METHODS=none", "SEEDS=0", "GRID=g", "run.root=/sys/paec-grid"])
    assert command.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: /sys/paec-grid") and said.count("\n") == 1
    assert said.endswith(": free some space, or set run.root to a writable folder\n")


def test_ctrl_c_while_the_grid_is_checked(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["grid", "METHODS=none"])
    monkeypatch.setattr(command, "prepare", lambda grid: signal.raise_signal(signal.SIGINT))
    assert command.main() == 130
    assert capsys.readouterr().err == "interrupted; the same command resumes\n"
