"""Searches in the laboratory: real tiny runs, and a stand-in where a run must fail or hang."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest
import yaml
from search_cases import NEEDS_OPTUNA, request

from recipe.lab.settings import settings_of
from recipe.lab.sweep import jobs_of
from recipe.paec.common.errors import UserError
from recipe.search import lab
from recipe.search.command import main
from recipe.search.lab import Lab
from recipe.search.studies import JOURNAL, Setting

TINY = ["steps=2", "prompts=2", "mini_batch=2", "responses=2", "test_every=1", "test_samples=2", "save_every=1"]
FILE = f"""
all: [{", ".join(TINY)}]
seeds: [11]
trials: 2
sampler: {{name: random, seed: 1}}
objective: {{take: hypervolume, of: [avg@2, pass@2]}}
methods:
  paec: {{rho_min: {{low: 0.5, high: 0.9}}}}
  clip_cov: {{ratio: [0.0002, 0.02]}}
"""
STAND_IN = """
import sys, time
if any("rho_min=0.8" in argument for argument in sys.argv):
    sys.exit("no room on the disk")
time.sleep(float({pause!r}))
"""


def test_a_small_search(tmp_path, capsys):
    """Two methods, two settings each, two steps: from the file to the jobs that follow; then nothing is left to do."""
    pytest.importorskip("optuna", reason=NEEDS_OPTUNA)
    file, folder = tmp_path / "small.yaml", tmp_path / "out"
    file.write_text(FILE)
    assert main([str(file), "--output", str(folder), "--processes", "2"]) == 0
    assert "2 methods, 4 settings, 1 seeds: 4 runs of 2 steps" in capsys.readouterr().out
    result = json.loads((folder / "search.json").read_text())
    assert result["equal"] and "2 settings x 1 seeds = 2 runs, 4 steps" in result["audit"]
    for row in result["methods"]:
        objectives = [one["objective"] for one in row["settings"]]
        assert row["chosen"] == objectives.index(max(objectives)) and 0 < max(objectives) < 1
        assert row["spent"]["cpu_seconds"] > 0
    runs = {path.name: path for path in (folder / "runs").iterdir()}
    assert sorted(runs) == [f"{method}-{place}-seed11" for method in ("clip_cov", "paec") for place in (0, 1)]
    drawn = result["methods"][0]["settings"][1]["params"]["rho_min"]
    assert f"rho_min: {drawn!r}\n" in (runs["paec-1-seed11"] / "config.yaml").read_text()
    jobs = yaml.safe_load((folder / "jobs.yaml").read_text())
    assert jobs["all"] == TINY and jobs["seeds"] == [1, 2, 3] and list(jobs["jobs"]) == ["paec", "clip_cov"]
    assert [job.name for job in jobs_of({**jobs, "seeds": [1]}, tmp_path)] == ["paec-seed1", "clip_cov-seed1"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    assert len(before) == 4
    assert main([str(file), "--output", str(folder)]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")} == before
    assert json.loads((folder / "search.json").read_text()) == result
    file.write_text(FILE.replace("[0.0002, 0.02]", "[0.0002, 0.002, 0.02]"))
    assert main([str(file), "--output", str(folder)]) == 2
    assert f"error: {folder} holds another search: its methods.clip_cov.ratio is " in capsys.readouterr().err


def made(tmp_path, *overrides: str, processes: int = 2, **changes) -> Lab:
    given = [override.partition("=")[0] for override in overrides]
    common = [override for override in TINY if override.partition("=")[0] not in given]
    asked = request(all=[*common, *overrides], **{"methods": {"paec": {"rho_min": [0.7, 0.8]}}, **changes})
    return Lab(asked, tmp_path, processes)


@pytest.mark.parametrize(
    "overrides, methods, sentence",
    [
        (["held_out=true"], {"none": {}}, "all: held_out=true: test problems must not influence the choice"),
        (["test_every=-1"], {"none": {}}, "all: test_every=-1: a search needs validations"),
        (["output=x"], {"none": {}}, "all: output=x: the search sets output itself: use --output"),
        (["step=3"], {"none": {}}, "methods.none: unknown configuration key step: did you mean steps?"),
        ([], {"sirn": {}}, "methods.sirn: no method sirn: did you mean siren?"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, overrides, methods, sentence):
    with pytest.raises(UserError) as caught:
        made(tmp_path, *overrides, methods=methods)
    assert str(caught.value).startswith(sentence)
    assert not list(tmp_path.iterdir())


def test_methods_and_metrics(tmp_path):
    runner = made(tmp_path)
    assert runner.steps == 2 and runner.metrics() == ["avg@2", "pass@1", "pass@2", "distinct@2"]
    assert runner.stack("paec").methods[0].rho_min == 0.8
    setting = Setting("paec", 1, {"rho_min": 0.7}, 1, None)
    settings = settings_of(runner._overrides(setting, 12))
    assert settings.seed == 12 and settings.stack.methods[0].rho_min == 0.7
    assert settings.output == runner.folder(setting, 12) == tmp_path / "runs" / "paec-1-seed12"
    name, content = runner.next({"paec": {"rho_min": 0.7}}, [1, 2])
    assert name == "jobs.yaml" and "seeds 11, 12; these are others" in content
    assert yaml.safe_load(content)["jobs"] == {"paec": ["method=paec", "method.rho_min=0.7"]}


SETTINGS = [Setting("paec", 0, {"rho_min": 0.8}, 0, None), Setting("paec", 1, {"rho_min": 0.7}, 1, None)]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """stand_in(pause) puts a script in the place of the laboratory, which fails at once for rho_min=0.8."""

    def put(pause: float) -> None:
        file = tmp_path / "run.py"
        file.write_text(STAND_IN.format(pause=str(pause)))
        monkeypatch.setattr(lab, "COMMAND", [sys.executable, str(file)])

    return put


def test_a_failed_run_is_named_and_the_others_continue(tmp_path, stand_in, monkeypatch):
    stand_in(0)
    runner, finished = made(tmp_path, seeds=[1]), []
    done: set[Path] = set()
    monkeypatch.setattr(lab, "steps_done", lambda folder: 2 if folder in done else 0)
    start = runner._start

    def started(setting, seed):
        done.add(runner.folder(setting, seed))
        return start(setting, seed)

    monkeypatch.setattr(runner, "_start", started)
    ended = runner.run(SETTINGS, lambda setting: finished.append(setting.label))
    log = tmp_path / "runs" / "paec-0-seed1" / "lab.log"
    assert ended.failures == {"paec-0": f"paec-0-seed1: exit code 1; {log} says why"} and ended.code is None
    assert finished == ["paec-1"] and "no room on the disk" in log.read_text()


def test_sigterm_ends_the_runs(tmp_path, stand_in):
    stand_in(600)
    before = set(psutil.Process().children(recursive=True))

    over = threading.Event()

    def stop() -> None:
        while not set(psutil.Process().children(recursive=True)) - before:
            if over.wait(0.05):  # it began nothing: a signal would end the tests
                return
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        ended = made(tmp_path, seeds=[1]).run(SETTINGS[1:], lambda setting: None)
    finally:
        over.set()
        thread.join()
    assert ended.code == 128 + signal.SIGTERM and ended.failures == {}
    assert set(psutil.Process().children(recursive=True)) <= before, "nothing is left"


def test_everything_is_checked_before_the_first_run(tmp_path, stand_in):
    stand_in(0)
    wrong = Setting("paec", 1, {"rho_min": -1.0}, 1, None)
    with pytest.raises(UserError, match="^methods.paec: method.rho_min=-1.0: "):
        made(tmp_path).run([SETTINGS[0], wrong], lambda setting: None)
    assert not (tmp_path / "runs").exists() and not (tmp_path / JOURNAL).exists()
