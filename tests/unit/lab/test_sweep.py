"""A sweep: its jobs, what is recorded of a run, and what is skipped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import date
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
import torch

from data_prep.arithmetic import CHOSEN
from recipe.lab import sweep
from recipe.lab.runs import STATE_FILE
from recipe.lab.sweep import jobs_of, main, record_of, recorded
from recipe.paec.common.errors import UserError
from recipe.paec.common.records import METRICS_FILE, PROBLEMS_FILE
from recipe.paec.common.repository import REPOSITORY

STAND_IN = "import os, time; open({folder!r} + '/' + str(os.getpid()), 'w').close(); time.sleep(600)"
FILE = {"all": ["steps=4", "test_every=2"], "seeds": [1, 2], "jobs": {"grpo": ["method=none"], "paec": []}}


def test_every_job_with_every_seed(tmp_path):
    jobs = jobs_of(FILE, tmp_path)
    assert [job.name for job in jobs] == ["grpo-seed1", "grpo-seed2", "paec-seed1", "paec-seed2"]
    assert [job.settings.seed for job in jobs] == [1, 2, 1, 2] and jobs[0].settings.steps == 4
    assert jobs[0].settings.output == tmp_path / "grpo-seed1" and jobs[2].settings.stack.names == ["paec"]


def test_an_override_of_a_job_takes_the_place_of_that_in_all(tmp_path):
    content = {"all": ["steps=4", "test_every=2", "method=none"], "jobs": {"a": ["method=siren", "steps=6"]}}
    (job,) = jobs_of(content, tmp_path)
    assert job.overrides[:4] == ("test_every=2", "method=siren", "steps=6", "seed=1")
    assert job.settings.steps == 6 and job.settings.stack.names == ["siren"]


@pytest.mark.parametrize(
    "content, sentence",
    [
        ({}, 'there are no jobs in this file: a file of jobs has "jobs: {name: [overrides]}"'),
        ({"jobs": {"a": []}, "seed": 1}, 'seed: did you mean seeds? a file of jobs has "jobs: {name: [overrides]}"'),
        ({"jobs": {"a": []}, "other": 1}, 'other: a file of jobs has "jobs: {name: [overrides]}"'),
        ({"jobs": {"a": []}, "seeds": [2, 1, 1]}, "seeds: 1 is given twice"),
        ({"jobs": {"a": ["fresh=true"]}}, "jobs.a: fresh: a sweep continues its runs: leave it out"),
        (
            {"jobs": {"a": [], "b": []}, "all": ["seed=3"]},
            "all: seed: every job runs with every seed: write seeds: [1, 2, 3]",
        ),
        ({"jobs": {"a": ["++name=foo"]}}, "jobs.a: name: a run is named after its job and its seed: rename the job"),
        ({"jobs": {"a": ["output=x"]}}, "jobs.a: output: the runs go to one folder: give it as --runs"),
        ({"jobs": {False: []}}, "jobs: YAML reads the name of a job as false, not as text: put the name in quotes"),
        ({"jobs": {0.5: []}}, "jobs: YAML reads the name of a job as 0.5, not as text: put the name in quotes"),
        ({"jobs": {".a": []}}, "jobs..a: name='.a-seed1' must not begin with a dot"),
        ({"jobs": {"a/b": []}}, "jobs.a/b: the name is that of a folder and of a file: leave the / out"),
        ({"jobs": {"a": ["lr=1e-4", "lr=1e-3"]}}, "jobs.a: lr=1e-4 lr=1e-3: lr is given 2 times: give it once"),
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
    assert re.fullmatch(r".+, model .+, \w+, torch " + re.escape(torch.__version__), record["processor"])
    (tmp_path / "grpo-seed1.json").write_text(json.dumps(record))
    assert recorded(job, tmp_path)
    other = jobs_of({**FILE, "all": ["steps=5", "test_every=2"]}, tmp_path)[0]
    changed = jobs_of({**FILE, "all": ["steps=4", "test_every=2", "lr=1e-4"]}, tmp_path)[0]
    assert not recorded(other, tmp_path) and not recorded(changed, tmp_path) and not recorded(job, tmp_path / "none")


def test_a_sweep_runs_records_and_skips(tmp_path, capsys):
    file, places = tmp_path / "jobs.yaml", ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "records")]
    common = "[steps=1, prompts=2, mini_batch=2, responses=2, test_every=1, test_samples=2]"
    file.write_text(f"all: {common}\njobs:\n  grpo: [method=none]\n")
    assert main([str(file), *places]) == 0
    record = json.loads((tmp_path / "records" / "grpo-seed1.json").read_text())
    assert record["steps"] == 1 and "own_code" not in record and 0 <= record["training"]["critic/score/mean"][0] <= 1
    assert "grpo-seed1: 1 steps" in capsys.readouterr().out
    (tmp_path / "records" / "other-seed1.json").write_text("not of this file")
    assert main([str(file), *places]) == 0
    shown = capsys.readouterr().out
    assert "1 runs, 1 of them recorded already" in shown
    average = record["validation"]["val/reasoning_gym/countdown/avg@2"][-1]
    assert f"\n| grpo |     1 | {average:.3f} |" in shown and "last validation, step 1;" in shown


@pytest.mark.skipif("avx2" not in Path("/proc/cpuinfo").read_text().split(), reason="this processor has no AVX2")
@pytest.mark.parametrize("command", [["recipe.lab", "sweep"], ["recipe.lab.sweep"]], ids=" ".join)
def test_a_record_says_how_its_training_computed(tmp_path, command):
    """With AVX2, whatever the processor has and whichever command recorded it."""
    file, records = tmp_path / "jobs.yaml", tmp_path / "records"
    common = "[steps=1, prompts=2, mini_batch=2, responses=2, test_every=-1]"
    file.write_text(f"all: {common}\njobs:\n  grpo: [method=none]\n")
    places = ["--runs", str(tmp_path / "runs"), "--records", str(records)]
    chosen = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    subprocess.run([sys.executable, "-m", *command, str(file), *places], check=True, env=chosen, cwd=REPOSITORY)
    assert ", AVX2, torch " in json.loads((records / "grpo-seed1.json").read_text())["processor"]


def test_a_run_is_recorded_as_itself_only(tmp_path, capsys):
    """A finished run in the folder of a job that is another one, or asks for other steps or validations."""
    places = ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "records")]
    common = "steps=1, prompts=2, mini_batch=2, responses=2"
    file = tmp_path / "jobs.yaml"
    for changed, sentence in (
        (", test_every=-1", ""),
        (
            ", test_every=-1, lr=1e-3",
            "optim.lr=5e-05, but this command has 0.001: delete the folder, or choose another --runs",
        ),
        (
            ", test_every=-1, held_out=true",
            "holds a run with held_out=false, but this command has true: delete the folder, or choose",
        ),
        (", test_every=1", "holds a run with test_every=-1, but this command has 1: delete the folder, or choose"),
    ):
        file.write_text(f"all: [{common}{changed}]\njobs:\n  grpo: [method=none]\n")
        assert main([str(file), *places]) == (1 if sentence else 0)
        assert sentence in capsys.readouterr().err
    record = json.loads((tmp_path / "records" / "grpo-seed1.json").read_text())
    assert "lr=1e-3" not in record["command"] and "held_out=true" not in record["command"]


def test_a_record_that_cannot_be_written_fails_its_job_only(tmp_path, monkeypatch, capsys):
    """In a folder where a file is in its way; the other job is trained and recorded."""
    trained = []
    monkeypatch.setattr(sweep, "_started", lambda job: trained.append(job.name))
    monkeypatch.setattr(sweep, "record_of", lambda job: {"command": ["", "", "", *job.overrides[:-2]], "steps": 150})
    monkeypatch.setattr(sweep, "table", lambda records: "")
    (tmp_path / "records" / "grpo-seed1.json").mkdir(parents=True)
    (tmp_path / "jobs.yaml").write_text("jobs: {grpo: [method=none], paec: []}")
    places = ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "records"), "--processes", "1"]
    assert main([str(tmp_path / "jobs.yaml"), *places]) == 1
    assert trained == ["grpo-seed1", "paec-seed1"]
    assert json.loads((tmp_path / "records" / "paec-seed1.json").read_text())["command"][3:] == ["seed=1"]
    assert capsys.readouterr().err == (
        f"error: grpo-seed1: {tmp_path}/records/grpo-seed1.json: Is a directory: free some space, or choose writable "
        "--runs and --records\n"
    )


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


def test_the_records_go_beside_the_runs(tmp_path, monkeypatch):
    """Only those of the repository's own files of jobs belong in the repository."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("jobs:\n  grpo: [method=none]\n")
    places = []
    monkeypatch.setattr(sweep, "train_all", lambda jobs, records, processes: (places.append(records) or [], 0))
    for arguments in (["mine.yaml"], ["mine.yaml", "--runs", "here/"], ["mine.yaml", "--records", "there"]):
        assert main(arguments) == 0
    assert places == [Path("outputs/lab/mine-records"), Path("here-records"), Path("there")]
    own = REPOSITORY / "benchmarks" / "lab" / "quick.yaml"
    assert sweep.records_of(own, tmp_path) == REPOSITORY / "benchmarks" / "results" / "lab" / "quick"


def test_the_record_of_an_own_method_knows_its_code(tmp_path, own_method, capsys):
    file, code = tmp_path / "jobs.yaml", own_method(0.1)
    places = ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "records")]
    common = "[steps=1, prompts=2, mini_batch=2, responses=2, test_every=-1]"
    file.write_text(f"all: {common}\njobs:\n  mine: [method=my_method.Mine]\n")
    assert main([str(file), *places]) == 0
    record = json.loads((tmp_path / "records" / "mine-seed1.json").read_text())
    assert record["own_code"]["my_method"] == sha256(code.read_bytes()).hexdigest()
    assert main([str(file), *places]) == 0 and "1 of them recorded already" in capsys.readouterr().out
    own_method(0.2)
    assert main([str(file), *places]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/records/mine-seed1.json was made with another version of {code}: delete it and "
        f"{tmp_path}/runs/mine-seed1, or choose other --runs and --records\n"
    )
    (tmp_path / "records" / "mine-seed1.json").unlink()
    assert main([str(file), *places]) == 1
    said = capsys.readouterr().err
    assert f"{code} has changed since the run in {tmp_path}/runs/mine-seed1 began (" in said and "): delete" in said


def test_a_file_that_is_not_yaml_is_named_with_the_line(tmp_path, capsys):
    file = tmp_path / "jobs.yaml"
    file.write_text("all: [steps=1]\njobs:\n  grpo: [method=none\n")
    assert main([str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file}, line 4: is not YAML (") and "unicode string" not in said
    assert said.endswith("): check brackets, quotes and indentation\n")
    file.write_bytes(b"jobs: \xff")
    assert main([str(file)]) == 2
    assert capsys.readouterr().err == f"error: {file}: has characters that YAML cannot have: save it as text in UTF-8\n"


@pytest.mark.parametrize("name, read", [("no", "false"), ("off", "false"), ("on", "true"), ("010", "8")])
def test_a_name_that_yaml_does_not_read_as_text(tmp_path, capsys, name, read):
    file = tmp_path / "jobs.yaml"
    file.write_text(f"jobs:\n  {name}: [method=none]\n")
    assert main([str(file)]) == 2
    said = f"error: jobs: YAML reads the name of a job as {read}, not as text: put the name in quotes\n"
    assert capsys.readouterr().err == said
    file.write_text(f'jobs:\n  "{name}": [method=none]\n')
    (job,) = jobs_of(sweep.read(file), tmp_path)
    assert job.name == f"{name}-seed1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_trainings(tmp_path, capsys, monkeypatch, number):
    """Both that are running; the third is not begun, and nothing is recorded."""
    began = tmp_path / "began"
    began.mkdir()
    monkeypatch.setattr(sweep, "COMMAND", [sys.executable, "-c", STAND_IN.format(folder=str(began))])
    before = set(psutil.Process().children(recursive=True))
    (tmp_path / "jobs.yaml").write_text("jobs: {a: [], b: [], c: []}")

    def stop() -> None:
        while len(list(began.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    places = ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "records"), "--processes", "2"]
    assert main([str(tmp_path / "jobs.yaml"), *places]) == 128 + number
    thread.join()
    assert capsys.readouterr().err == f"error: stopped by {number.name}: the same command continues\n"
    assert set(psutil.Process().children(recursive=True)) <= before, "nothing is left"
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["a-seed1", "b-seed1"]
    assert not (tmp_path / "records").exists()


def test_a_damaged_checkpoint_fails_its_job_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "COMMAND", [sys.executable, "-c", "import sys; sys.exit(3)"])
    folder = tmp_path / "runs" / "a-seed1"
    folder.mkdir(parents=True)
    (folder / STATE_FILE).write_bytes(b"")
    (tmp_path / "jobs.yaml").write_text("jobs: {a: [], b: []}")
    assert main([str(tmp_path / "jobs.yaml"), "--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "r")]) == 1
    assert capsys.readouterr().err == (
        f"error: a-seed1: {folder}/state.pt is damaged: delete the folder, or choose another --runs\n"
        f"error: b-seed1: exit code 3; {tmp_path}/runs/b-seed1/lab.log says why\n"
    )


def test_a_missing_file_and_a_failed_run(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert ": does not exist: give a YAML file of jobs" in capsys.readouterr().err
