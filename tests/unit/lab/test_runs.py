"""A run on disk: resumed bit by bit, skipped when finished, read by the report."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256

import pytest
import torch

from recipe.lab.__main__ import main
from recipe.lab.runs import STATE_FILE, is_finished, progress, run, steps_done
from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.errors import UserError
from recipe.paec.common.folder_kinds import MARK
from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.paec.report.command import report_of
from recipe.paec.report.runs import read_run

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
    shown = capsys.readouterr().out
    assert shown == f"{whole}: finished, 4 steps\nits curves: paec report {whole}\n"


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


@pytest.mark.parametrize(
    "other, sentence",
    [
        ("test_every=4", "test_every=2, but this command has 4"),
        ("steps=2", "steps=4, but this command has 2"),
        ("held_out=true", "held_out=false, but this command has true"),
    ],
)
def test_a_finished_run_with_other_validations_is_refused(small, whole, other, sentence):
    with pytest.raises(UserError) as caught:
        run(small(*METHOD, "steps=4", "test_every=2", "test_samples=2", other, f"output={whole}"))
    remedy = "choose another name=... or output=..., or start over with fresh=true"
    assert str(caught.value) == f"{whole} holds a run with {sentence}: {remedy}"


def test_fresh_begins_the_run_anew(small, tmp_path, capsys):
    folder = tmp_path / "run"
    common = ("method=none", "steps=1", f"output={folder}")
    run(small(*common))
    (folder / "mine.txt").write_text("kept")
    run(small(*common, "lr=1e-3", "fresh=true"))
    shown = capsys.readouterr().out
    deleted = "config.yaml, metrics.jsonl, problems.jsonl, state.pt"
    assert f"fresh=true: deletes the lab run in {folder}: {deleted}; leaves mine.txt" in shown
    assert lines(folder)[0]["actor/lr"] == 1e-3 and steps_done(folder) == 1
    run(small(*common, "lr=1e-3"))  # fresh does not make it another run
    assert json.loads((folder / MARK).read_text()) == {"kind": "lab"} and (folder / "mine.txt").read_text() == "kept"


def test_fresh_deletes_no_other_folder(small, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine.txt").write_text("kept")
    for content, sentence in (
        ({}, "contains mine.txt but no lab run: choose another name=... or output=..."),
        ({MARK: {"kind": "run"}}, "contains run files, not lab run files: choose another name=... or output=..."),
    ):
        for name, value in content.items():
            (folder / name).write_text(json.dumps(value))
        before = sorted(folder.iterdir())
        for fresh in ("fresh=true", "fresh=false"):
            with pytest.raises(UserError) as caught:
                run(small("method=none", f"output={folder}", fresh))
            assert str(caught.value) == f"{folder} {sentence}" and sorted(folder.iterdir()) == before


def test_a_run_from_before_marks_is_known_by_its_configuration(small, tmp_path):
    folder, common = tmp_path / "run", ("method=none", "steps=1")
    run(small(*common, f"output={folder}"))
    (folder / MARK).unlink()
    run(small(*common, "fresh=true", f"output={folder}"))
    assert steps_done(folder) == 1


def test_a_changed_file_of_an_own_method_is_noticed(small, own_method, tmp_path):
    """Finished or not: neither is the old result given for the new code, nor do its steps follow those of the old."""
    folder = tmp_path / "run"
    file, common = own_method(0.1), ("method=my_method.Mine", f"output={folder}")
    run(small(*common, "steps=1"))
    run(small(*common, "steps=1"))
    own_method(0.2)
    for steps in ("steps=1", "steps=2"):
        with pytest.raises(UserError) as caught:
            run(small(*common, steps))
        assert str(caught.value) == (
            f"{file} has changed since the run in {folder} began (the whole file is compared, so give each method a "
            "file of its own): choose another name=... or output=..., or start over with fresh=true"
        )
    run(small(*common, "steps=1", "fresh=true"))
    run(small(*common, "steps=2"))
    assert steps_done(folder) == 2


@pytest.mark.parametrize("file", ["model/model.safetensors", "data/validation.parquet", "data/warm_start.jsonl"])
def test_a_task_that_has_changed_is_noticed(small, whole, tmp_path, file):
    """A model that was replaced in place: the finished run is not that of this command any more."""
    task, folder = tmp_path / "task", tmp_path / "run"
    shutil.copytree(small().task, task)
    common = (*METHOD, "test_every=2", "test_samples=2", f"task={task}", f"output={folder}")
    settings = small(*common, "steps=4")
    shutil.copytree(whole, folder)
    content = torch.load(folder / STATE_FILE, weights_only=True)
    assert json.loads(content["task_files"])[file] == sha256((task / file).read_bytes()).hexdigest()
    content["identity"] = json.dumps({**json.loads(content["identity"]), "task": json.dumps(str(task))})
    torch.save(content, folder / STATE_FILE)
    assert is_finished(settings)
    (task / "model" / "README.md").write_text("changed")
    assert is_finished(small(*common, "steps=4")) and not is_finished(small(*common, "steps=5"))
    (task / file).write_bytes((task / file).read_bytes() + b" ")
    for steps in ("steps=4", "steps=5"):
        with pytest.raises(UserError) as caught:
            run(small(*common, steps))
        assert str(caught.value) == (
            f"{task / file} has changed since the run in {folder} began: choose another name=... or output=..., or "
            "start over with fresh=true"
        )
    del content["task_files"]  # of an earlier version
    torch.save(content, folder / STATE_FILE)
    assert is_finished(small(*common, "steps=4"))


@pytest.mark.parametrize("part", [0, 5, 100_000, 1_000_000])
def test_a_damaged_checkpoint_is_one_sentence(whole, tmp_path, capsys, part):
    """Empty, or cut off by a full disk; fresh=true starts over."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / STATE_FILE).write_bytes((whole / STATE_FILE).read_bytes()[:part])
    assert main(["method=paec", f"output={folder}"]) == 2
    assert capsys.readouterr().err == (
        f"error: {folder}/state.pt is damaged: choose another name=... or output=..., or start over with fresh=true\n"
    )
    with pytest.raises(UserError, match="state.pt is damaged: delete the folder"):
        steps_done(folder)
    assert folders.error_of(folder, folder_kinds.LAB, {}, fresh=True) is None


def test_a_folder_that_cannot_be_made(capsys):
    assert main(["method=none", "output=/sys/no_run_here"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: /sys/no_run_here: ")
    assert said.endswith(": free some space, or choose a writable folder with output=...\n")


def test_the_report_reads_it(whole):
    read = read_run(whole)
    assert read.status.sentence == "finished: 4 of 4 steps"
    assert read.remarks == (), "the laboratory writes no versions.json"
    assert "not everything could be read" not in report_of(whole).read_text()
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
    assert progress(record, 7) == "step 3/7  score 0.500  entropy 0.143  pass@4 0.750  seconds 0.90"


def test_the_command(tmp_path, capsys):
    assert main(["method=sirn"]) == 2
    assert capsys.readouterr().err.startswith("error: no method sirn: did you mean siren?")
    assert main(["--help"]) == 0 and "usage: paec lab" in capsys.readouterr().out
