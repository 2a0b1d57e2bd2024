"""A run on disk: resumed bit by bit, skipped when finished, read by the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from recipe.lab.__main__ import main
from recipe.lab.runs import STATE_FILE, progress, run, steps_done
from recipe.paec.common.errors import UserError
from recipe.paec.report.runs import read_run
from recipe.paec.run.log import METRICS_FILE, read_metrics

METHOD = ("method=paec", "method.anchor_steps=2", "also=[clip_higher]")


def lines(folder) -> list[dict]:
    """The metrics without the clock's."""
    found = read_metrics(folder / METRICS_FILE)
    return [{k: v for k, v in line.items() if not k.startswith(("timing", "perf/throughput"))} for line in found]


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """Four steps in one go, a validation of the first two problems included."""
    folder = tmp_path_factory.mktemp("lab") / "whole"
    run(small(*METHOD, "steps=4", "test_every=2", "test_samples=2", f"output={folder}"))
    return folder


def test_a_resumed_run_is_the_same_bit_by_bit(small, whole, tmp_path):
    folder = tmp_path / "parts"
    common = (*METHOD, "test_every=2", "test_samples=2", f"output={folder}")
    run(small(*common, "steps=2"))
    assert steps_done(folder) == 2 and [line["step"] for line in lines(folder)] == [0, 1, 2]
    with open(folder / METRICS_FILE, "a") as stream:
        stream.write(json.dumps({"step": 3, "lost": 1.0}) + "\n")  # of a step whose checkpoint was never written
    run(small(*common, "steps=4"))
    assert lines(folder) == lines(whole) and [line["step"] for line in lines(whole)] == [0, 1, 2, 3, 4]
    there, here = (torch.load(place / STATE_FILE, weights_only=True) for place in (whole, folder))
    for part in ("parameters", "optimizer"):
        torch.testing.assert_close(here[part], there[part], rtol=0, atol=0)
    assert all(here[part] == there[part] for part in ("trackers", "step", "drawn"))
    assert json.loads(there["trackers"])["paec"], "the anchor must be in it"


def test_a_finished_run_is_left_as_it_is(small, whole, capsys):
    before = (whole / METRICS_FILE).read_bytes(), (whole / STATE_FILE).stat().st_mtime_ns
    run(small(*METHOD, "steps=4", "test_every=2", "test_samples=2", f"output={whole}"))
    assert ((whole / METRICS_FILE).read_bytes(), (whole / STATE_FILE).stat().st_mtime_ns) == before
    assert f"{whole}: finished, 4 steps" in capsys.readouterr().out


def test_cut_off_responses_are_warned_of(small, tmp_path, capsys):
    """The default length is the quick start's: another task's responses may be longer."""
    run(small("method=none", "steps=1", "data.max_response_length=4", f"output={tmp_path / 'short'}"))
    assert "warning: 100% of the responses are cut off at data.max_response_length=4" in capsys.readouterr().out
    run(small("method=none", "steps=1", f"output={tmp_path / 'long'}"))
    assert "warning" not in capsys.readouterr().out


def test_held_out_problems_that_a_task_lacks(small, tmp_path):
    shutil.copytree(small().task, tmp_path / "task")
    (tmp_path / "task" / "data" / "warm_start.jsonl").unlink()
    with pytest.raises(UserError, match="held_out=true: .* has no held-out countdown problems: leave held_out out"):
        run(small("method=none", "held_out=true", f"task={tmp_path / 'task'}", f"output={tmp_path / 'run'}"))


def test_another_run_in_the_folder_is_refused(small, whole):
    with pytest.raises(UserError, match="holds a run with seed=1, but this command has 2: choose another name"):
        run(small(*METHOD, "steps=4", "seed=2", "test_samples=2", f"output={whole}"))


def test_the_report_reads_it(whole):
    read = read_run(whole)
    assert read.status.sentence == "finished: 4 of 4 steps"
    assert read.setting("method._target_") == "paec_loss.methods.paec.PAEC" and read.setting("seed") == 1
    assert read.setting("actor_rollout_ref.actor.ppo_mini_batch_size") == 2
    source = "val/reasoning_gym/countdown"
    tested = [line for line in read.records if f"{source}/avg@2" in line]
    assert [line["step"] for line in tested] == [0, 2, 4]
    for line in tested:
        assert 0.2 < line[f"{source}/pass@1"] <= line[f"{source}/pass@2"] <= 1
        assert line[f"{source}/pass@1"] <= line[f"{source}/distinct@2"] <= 2 and 0 < line[f"{source}/entropy"] < 1
        assert not any("/maj@" in key for key in line)


def test_progress_is_one_line():
    record = {"step": 3, "critic/score/mean": 0.5, "actor/entropy": 0.1434, "timing_s/step": 0.9, "val/x/pass@4": 0.75}
    assert progress(record, 7) == "step 3/7  score 0.500  entropy 0.143  pass@4 0.750  0.90 s"


def test_the_command(tmp_path, capsys):
    assert main(["method=sirn"]) == 2
    assert capsys.readouterr().err.startswith("error: no method sirn: did you mean siren?")
    assert main(["--help"]) == 0 and "usage: paec lab" in capsys.readouterr().out


def test_the_example_of_the_page(tmp_path, monkeypatch):
    """The class of docs/lab.md trains, and does what its docstring says."""
    page = (Path(__file__).parents[3] / "docs" / "lab.md").read_text(encoding="utf-8")
    (tmp_path / "pkg_of_the_page.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.chdir(tmp_path)
    common = ("prompts=2", "mini_batch=2", "responses=4", "steps=1", "test_every=-1")
    assert main(["method=pkg_of_the_page.Surprise", "method.alpha=0.2", *common]) == 0
    assert main(["method=none", *common]) == 0
    runs = {folder.name.partition("-")[0]: folder for folder in (tmp_path / "outputs" / "lab").iterdir()}
    mine, plain = (lines(runs[name])[0] for name in ("Surprise", "none"))
    assert mine["critic/score/mean"] == plain["critic/score/mean"], "the first responses are the same"
    assert mine["actor/grad_norm"] != plain["actor/grad_norm"]
