"""Grids on this machine, killed and started again; a script takes the place of the training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pipeline_runs import REPOSITORY, descendants, finish, records, wait_for

from recipe.paec.grid import local
from recipe.paec.grid.runs import GridRun

TRAINING = """
import json, os, re, signal, sys, time
from pathlib import Path
given = dict(a.split("=", 1) for a in sys.argv[1:])
folder = Path(given["run.root"]) / given["run.name"].strip("'")
steps, pause = int(given["trainer.total_training_steps"]), float(os.environ.get("PAUSE", "0"))
folder.mkdir(exist_ok=True)
mark = {"kind": "run", "experiment": given["experiment"], "name": folder.name}
(folder / ".paec_folder.json").write_text(json.dumps(mark))
(folder / "starts").open("a").write(f"{os.getpid()}\\n")
if given["method"] == os.environ.get("FAILS"):
    sys.exit("error: no room on the disk")
asked = []
signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
state = lambda step: folder / "checkpoints" / f"global_step_{step}" / "paec_state.json"
first = 1 + max((step for step in range(steps + 1) if state(step).is_file()), default=0)
for step in range(first, steps + 1):
    time.sleep(pause)
    record = {"step": step, "actor/entropy": 0.5, "response_length/mean": 7, "timing_s/step": 1.0}
    record |= {f"val/s/{m}@4": int(given["seed"]) / 4 for m in ("avg", "maj", "pass")} if step == steps else {}
    (folder / "metrics.jsonl").open("a").write(json.dumps(record) + "\\n")
    print(f"step {step}/{steps}", flush=True)
    state(step).parent.mkdir(parents=True)
    state(step).write_text("{}")
    if asked:
        print("stopped, as requested", flush=True)
        sys.exit(128 + asked[0])
"""
GRID = """
import sys
from recipe.paec.grid import command as grid, local
local.TRAIN = [sys.executable, {script!r}]
sys.exit(grid.main())
"""


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """launch(*arguments, ENVIRONMENT=...) -> a started grid of two methods with seeds 1 and 3."""
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    started = []

    def start(*arguments: str, **env: str) -> subprocess.Popen:
        for name, value in {"PAUSE": "0", "FAILS": "", **env}.items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-c", GRID.format(script=str(script)), "METHODS=none paec", "SEEDS=1 3", "GRID=g"]
        command += [f"run.root={tmp_path}", "trainer.total_training_steps=3", "run.export=false", *arguments]
        pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(subprocess.Popen(command, cwd=REPOSITORY, **pipe))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def starts(root: Path) -> dict[str, int]:
    """Run -> how often it was started."""
    return {file.parent.name.removeprefix("tiny_cpu-"): len(file.read_text().split()) for file in root.glob("*/starts")}


def values(root: Path) -> dict:
    return json.loads((root / "g" / "table.json").read_text())


def test_a_grid_from_beginning_to_end(launch, tmp_path):
    """One method fails: the others continue, the failure is shown, and the same command only does what is missing."""
    process = launch(FAILS="paec")
    output = finish(process)
    assert process.returncode == 1, output
    assert starts(tmp_path) == {"none-seed1": 1, "paec-seed1": 1, "none-seed3": 1, "paec-seed3": 1}
    assert [m["seeds"] for m in values(tmp_path)["methods"]] == [[1, 3], []]
    assert "* paec, seed 3: not started; its last attempt failed: no room on the disk" in output
    assert "=== run 3 of 4: none, seed 3, about 0 min left ===\nstep 1/3\nstep 2/3\n" in output
    assert "error: paec, seed 1: no room on the disk" in output
    process = launch()
    output = finish(process)
    assert process.returncode == 0, output
    assert starts(tmp_path) == {"none-seed1": 1, "paec-seed1": 2, "none-seed3": 1, "paec-seed3": 2}
    assert "4 runs of tiny_cpu, 2 of them done" in output and "Not in the table" not in output
    assert [m["seeds"] for m in values(tmp_path)["methods"]] == [[1, 3], [1, 3]]
    assert values(tmp_path)["methods"][1]["accuracy"]["s"]["avg@4"]["value"] == 0.5
    third = launch("--table-only")
    assert "| 50.0 ±" in finish(third) and sum(starts(tmp_path).values()) == 6


def test_the_time_left_leaves_the_preparation_out(tmp_path):
    """Ten minutes of making model and data, then a minute of training."""
    run = GridRun("none", 1, tmp_path, 3, saves=True, exports=False)
    now = time.time()
    assert 660 <= local.training_time(run, now - 660) < 720
    (tmp_path / "config.yaml").touch()
    os.utime(tmp_path / "config.yaml", (now - 60, now - 60))
    assert 60 <= local.training_time(run, now - 660) < 120


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=SLOW), pytest.param(signal.SIGKILL, marks=SLOW)]
)
def test_killed_and_started_again(launch, tmp_path, number):
    first = launch(PAUSE="1")
    directory = tmp_path / "tiny_cpu-paec-seed1"
    wait_for(lambda: len(records(directory)) == 1, first)
    family = descendants(first.pid)
    first.send_signal(number)
    output = finish(first)
    _, left = psutil.wait_procs(family, timeout=20)
    assert [p.pid for p in left] == []
    assert first.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number], output
    before = len(records(directory))
    if number != signal.SIGKILL:
        assert "stopped, as requested" in output and f"stopped by {number.name}; the same command resumes" in output
        assert before == 2, "the step it was in was saved"
        assert f"* paec, seed 1: at step {before} of 3" in output
    second = launch()
    output = finish(second)
    assert second.returncode == 0, output
    assert starts(tmp_path) == {"none-seed1": 1, "paec-seed1": 2, "none-seed3": 1, "paec-seed3": 1}
    assert f"=== run 1 of 3: paec, seed 1, at step {before} of 3 ===" in output
    assert [record["step"] for record in records(directory)] == [1, 2, 3]
    assert [m["seeds"] for m in values(tmp_path)["methods"]] == [[1, 3], [1, 3]]


@pytest.mark.slow
def test_two_at_once_are_refused(launch, tmp_path):
    first = launch(PAUSE="60")
    wait_for(lambda: starts(tmp_path), first)
    second = launch()
    output = finish(second)
    assert second.returncode == 2 and f"error: {tmp_path / 'g'} is in use by another grid" in output
    look = launch("--table-only")
    assert "* none, seed 1: not started" in finish(look) and look.returncode == 0
