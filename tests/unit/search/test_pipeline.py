"""Searches in the pipeline: the grid is real, a script takes the place of the training and of Slurm's commands."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from search_cases import NEEDS_OPTUNA, request

from recipe.paec.common.errors import UserError
from recipe.paec.grid import local
from recipe.paec.grid.request import parse
from recipe.search.command import main
from recipe.search.pipeline import Pipeline

TRAINING = """
import json, sys
from pathlib import Path
given = dict(a.split("=", 1) for a in sys.argv[1:])
folder = Path(given["run.root"].strip("'")) / given["run.name"].strip("'")
folder.mkdir(parents=True)
mark = {"kind": "run", "experiment": given["experiment"], "name": folder.name}
(folder / ".paec_folder.json").write_text(json.dumps(mark))
for step in (1, 2):
    record = {"step": step, "actor/entropy": 0.5, "response_length/mean": 7, "timing_s/step": 3.0}
    value = float(given.get("method.rho_min", 0.25)) + int(given["seed"]) / 100
    record |= {f"val/s/{m}@4": value for m in ("avg", "maj", "pass")} if step == 2 else {}
    (folder / "metrics.jsonl").open("a").write(json.dumps(record) + "\\n")
state = folder / "checkpoints" / "global_step_2" / "paec_state.json"
state.parent.mkdir(parents=True)
state.write_text("{}")
"""
SLURM = """#!/usr/bin/env python3
import json, os, pathlib, sys
name = pathlib.Path(sys.argv[0]).name
if name == "sbatch":
    with open({log!r}, "a") as stream:
        print(json.dumps([os.environ["METHODS"], *sys.argv[1:]]), file=stream)
    print("77")
"""
SHORT = [
    "trainer.total_training_steps=2",
    "trainer.test_freq=2",
    "run.export=false",
    "actor_rollout_ref.rollout.val_kwargs.n=4",
]
FILE = {
    "all": SHORT,
    "seeds": [1, 2],
    "trials": 2,
    "sampler": "grid",
    "objective": {"take": "last", "of": "maj@4"},
    "runner": "pipeline",
    "methods": {"none": {}, "paec": {"rho_min": [0.5]}},
}


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A script in the place of the training."""
    (tmp_path / "training.py").write_text(TRAINING)
    monkeypatch.setattr(local, "TRAIN", [sys.executable, str(tmp_path / "training.py")])


def test_a_search_as_a_grid(tmp_path, training, capsys):
    pytest.importorskip("optuna", reason=NEEDS_OPTUNA)
    file, folder = tmp_path / "two.yaml", tmp_path / "out"
    file.write_text(json.dumps(FILE))
    assert main([str(file), "--output", str(folder)]) == 0
    assert "2 methods, 3 settings, 2 seeds: 6 runs of 2 steps" in capsys.readouterr().out
    result = json.loads((folder / "search.json").read_text())
    none, paec = result["methods"]
    values = [{"1": 0.81, "2": 0.82}, {"1": 0.51, "2": 0.52}]
    assert [one["values"] for one in paec["settings"]] == [pytest.approx(of) for of in values]
    assert none["settings"][0]["objective"] == pytest.approx(0.265) and paec["chosen"] == none["chosen"] == 0
    assert paec["spent"] == {"settings": 2, "runs": 4, "steps": 8, "seconds": 24.0, "cpu_seconds": None}
    assert result["equal"]
    script = (folder / "grid.sh").read_text().splitlines()
    words = shlex.split(script[-1])
    assert words[:2] == ["paec", "grid"]
    grid = parse(words[2:], {})
    assert grid.seeds == (3, 4, 5) and grid.overrides == tuple(SHORT)
    assert [(entry.label, entry.overrides) for entry in grid.entries] == [
        ("none", ()),
        ("paec", ("method.rho_min=0.8",)),
    ]
    runs = sorted((folder / "runs").glob("tiny_cpu-*"))
    assert len(runs) == 6
    assert main([str(file), "--output", str(folder)]) == 0
    assert json.loads((folder / "search.json").read_text()) == result


def test_a_search_on_slurm(tmp_path, monkeypatch, capsys):
    """Submitted as one array; the settings stay begun until their runs are done."""
    pytest.importorskip("optuna", reason=NEEDS_OPTUNA)
    commands, log = tmp_path / "bin", tmp_path / "calls"
    commands.mkdir()
    for name in ("sbatch", "squeue"):
        (commands / name).write_text(SLURM.format(log=str(log)))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    file, folder = tmp_path / "far.yaml", tmp_path / "out"
    file.write_text(json.dumps({**FILE, "slurm": "--nodes=1"}))
    assert main([str(file), "--output", str(folder)]) == 0
    array, _ = [json.loads(line) for line in log.read_text().splitlines()]
    assert array[0] == "none-0=none paec-0=paec:method.rho_min=0.8 paec-1=paec:method.rho_min=0.5"
    assert {"--nodes=1", "--array=0,1,2,3,4,5", "--job-name=paec-search-far"} <= set(array)
    said = capsys.readouterr().out
    assert "submitted 6 of 6 runs as the array 77" in said and "submitted; the same command resumes" in said
    result = json.loads((folder / "search.json").read_text())
    assert not result["equal"] and [row["spent"]["settings"] for row in result["methods"]] == [0, 0]
    assert not (folder / "grid.sh").exists()


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"all": ["run.root=x"]}, "all: run.root=x: the search sets run.root itself: use --output"),
        ({"all": ["SEEDS=5 6"]}, "all: SEEDS=5 6: the search sets SEEDS itself: use seeds"),
        (
            {"all": ["experiment=qwen7b"]},
            "all: experiment=qwen7b: the search sets experiment itself: use the key experiment of the file",
        ),
        ({"all": ["run.name=x"]}, "run.name=x: the grid sets run.name itself"),
        ({"all": ["trainer.test_freq=-1"]}, "trainer.test_freq must be > 0: "),
        ({"methods": {"sirn": {}}}, "no method sirn: did you mean siren?"),
        ({"experiment": "tiny_cp"}, "no experiment tiny_cp: did you mean tiny_cpu?"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, changes, sentence):
    with pytest.raises(UserError) as caught:
        Pipeline(request(**{**FILE, "methods": {"none": {}}, **changes}), tmp_path / "out")
    assert sentence in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_methods_and_metrics(tmp_path):
    runner = Pipeline(request(**FILE), Path(tmp_path / "out"))
    assert runner.metrics() == ["avg@4", "maj@4", "pass@1", "pass@2", "pass@4"] and runner.steps == 2
    assert runner.stack("paec").methods[0].rho_min == 0.8
