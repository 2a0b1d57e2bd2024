"""A sweep: its jobs, what is recorded of a run, and what is skipped."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path

import pytest

from recipe.lab import sweep
from recipe.lab.sweep import jobs_of, main, record_of, recorded
from recipe.paec.common.errors import UserError
from recipe.paec.common.records import PROBLEMS_FILE
from recipe.paec.run.log import METRICS_FILE

FILE = {"all": ["steps=4", "test_every=2"], "seeds": [1, 2], "jobs": {"grpo": ["method=none"], "paec": []}}


def test_every_job_with_every_seed(tmp_path):
    jobs = jobs_of(FILE, tmp_path)
    assert [job.name for job in jobs] == ["grpo-seed1", "grpo-seed2", "paec-seed1", "paec-seed2"]
    assert [job.settings.seed for job in jobs] == [1, 2, 1, 2] and jobs[0].settings.steps == 4
    assert jobs[0].settings.output == tmp_path / "grpo-seed1" and jobs[2].settings.stack.names == ["paec"]


@pytest.mark.parametrize(
    "content, sentence",
    [
        ({}, 'a file of jobs has "jobs: {name: [overrides]}"'),
        ({"jobs": {"a": []}, "seed": 1}, 'a file of jobs has "jobs: {name: [overrides]}"'),
        ({"jobs": {"a": ["method=sirn"]}}, "jobs.a: no method sirn: did you mean siren?"),
        ({"jobs": {"a": [{"method": "none"}]}}, "jobs.a: overrides must be text"),
        ({"jobs": {"a": "method=none"}}, "jobs.a: must be a list of overrides"),
        ({"jobs": ["a"]}, "jobs: must be names with their overrides"),
        ({"jobs": {"a": []}, "seeds": 3}, "seeds=3: must be a list, such as [1, 2, 3]"),
        ({"jobs": {"a": []}, "seeds": []}, "seeds=[]: must be a list, such as [1, 2, 3]"),
        ({"jobs": {"a": []}, "all": "steps=3"}, "all=steps=3: must be a list, such as [steps=300]"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, content, sentence):
    with pytest.raises(UserError) as caught:
        jobs_of(content, tmp_path)
    assert sentence in str(caught.value) and len(caught.value.errors) == 1


def test_a_record_has_the_curves(tmp_path):
    job = jobs_of(FILE, tmp_path)[0]
    job.settings.output.mkdir()
    lines = [{"step": 0, "val/x/pass@1": 0.25}]
    lines += [{"step": s, "critic/score/mean": s / 10, "timing_cpu_s/step": 1.5} for s in (1, 2, 3, 4)]
    lines[2]["val/x/pass@1"] = 0.5
    lines[4]["val/x/pass@1"] = 0.123456
    lines[3]["actor/paec/floor"], lines[4]["actor/paec/floor"] = 0.25, 0.75
    (job.settings.output / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = record_of(job)
    assert record["command"] == ["python", "-m", "recipe.lab", "steps=4", "test_every=2", "method=none", "seed=1"]
    assert record["validation"] == {"step": [0, 2, 4], "val/x/pass@1": [0.25, 0.5, 0.12346]}
    assert record["training"]["step"] == [2, 4]
    assert record["training"]["critic/score/mean"] == [0.15, 0.35]
    assert record["training"]["actor/entropy"] == [None, None]
    assert record["training"]["actor/paec/floor"] == [None, 0.5]
    assert (record["steps"], record["cpu_seconds_per_step"]) == (4, 1.5)
    assert record["date"] == date.today().isoformat() and record["cores"] == os.cpu_count()
    (tmp_path / "grpo-seed1.json").write_text(json.dumps(record))
    assert recorded(job, tmp_path)
    other = jobs_of({**FILE, "all": ["steps=5", "test_every=2"]}, tmp_path)[0]
    changed = jobs_of({**FILE, "all": ["steps=4", "test_every=2", "lr=1e-4"]}, tmp_path)[0]
    assert not recorded(other, tmp_path) and not recorded(changed, tmp_path) and not recorded(job, tmp_path / "none")


def test_a_sweep_runs_records_and_skips(tmp_path, capsys):
    file, places = tmp_path / "jobs.yaml", ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "records")]
    common = "[steps=1, prompts=2, mini_batch=2, responses=2, test_every=-1]"
    file.write_text(f"all: {common}\njobs:\n  grpo: [method=none]\n")
    assert main([str(file), *places]) == 0
    record = json.loads((tmp_path / "records" / "grpo-seed1.json").read_text())
    assert record["steps"] == 1 and 0 <= record["training"]["critic/score/mean"][0] <= 1
    assert "grpo-seed1: 1 steps" in capsys.readouterr().out
    assert main([str(file), *places]) == 0
    assert "1 runs, 1 of them recorded already" in capsys.readouterr().out


def test_a_run_is_recorded_as_itself_only(tmp_path, capsys):
    """A finished run in the folder of a job that is another one, or asks for other steps or validations."""
    places = ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "records")]
    common = "steps=1, prompts=2, mini_batch=2, responses=2, test_every=-1"
    file = tmp_path / "jobs.yaml"
    for changed, sentence in (
        ("", ""),
        (", lr=1e-3", "optim.lr=5e-05, but this command has 0.001: choose another"),
        (", held_out=true", "holds a finished run with held_out=False, but this command has True"),
        (", test_every=1", "holds a finished run with test_every=-1, but this command has 1"),
    ):
        file.write_text(f"all: [{common}{changed}]\njobs:\n  grpo: [method=none]\n")
        assert main([str(file), *places]) == (1 if sentence else 0)
        assert sentence in capsys.readouterr().err
    record = json.loads((tmp_path / "records" / "grpo-seed1.json").read_text())
    assert "lr=1e-3" not in record["command"] and "held_out=true" not in record["command"]


def test_an_extended_run_has_the_validations_of_a_fresh_one(tmp_path):
    job = jobs_of({**FILE, "all": ["steps=4", "test_every=2"]}, tmp_path)[0]
    job.settings.output.mkdir()
    lines = [{"step": s, "timing_cpu_s/step": 1.0, "val/x/pass@1": s / 8} for s in (0, 1, 2, 3, 4)]
    del lines[1]["val/x/pass@1"]
    counts = [{"step": s, "split": "validation", "correct": [s], "distinct": [1]} for s in (0, 2, 3, 4)]
    for name, rows in ((METRICS_FILE, lines), (PROBLEMS_FILE, counts)):
        (job.settings.output / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = record_of(job)
    assert record["validation"] == {"step": [0, 2, 4], "val/x/pass@1": [0, 0.25, 0.5]}
    assert record["problems"]["validation"]["correct"] == [[0], [2], [4]]


def test_the_records_go_where_the_file_of_jobs_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("jobs:\n  grpo: [method=none]\n")
    places = []
    monkeypatch.setattr(sweep, "finish", lambda job, records: places.append(records))
    assert main(["mine.yaml"]) == 0 and main(["mine.yaml", "--records", "there"]) == 0
    assert places == [Path("benchmarks/results/lab/mine"), Path("there")]


def test_a_missing_file_and_a_failed_run(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert ": does not exist: give a YAML file of jobs" in capsys.readouterr().err
