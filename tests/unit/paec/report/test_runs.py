"""Runs as they are on disk: finished, running, failed, stopped, broken."""

import json

import pytest
from report_runs import record, write_run

from recipe.paec.common import folder_kinds, folders
from recipe.paec.report.runs import is_run, read_records, read_run


def test_a_finished_run(tmp_path):
    run = read_run(write_run(tmp_path / "a"))
    assert (run.status.kind, run.status.sentence) == ("finished", "finished: 8 of 8 steps")
    assert run.name == "a" and run.last_step == 8 and run.remarks == ()
    assert run.setting("trainer.total_training_steps") == 8 and run.setting("trainer.nothing.here") is None
    assert run.records[4] == record(4)


@pytest.mark.parametrize(
    "config, method",
    [
        ("identity: {method: paec}\nmethod: {_target_: paec_loss.PAEC}", "paec"),
        ("method: {_target_: paec_loss.methods.none.NoMethod}\nalso: {}", "none"),
        ("method: {_target_: my_pkg.Mine}", "my_pkg.Mine"),
        ("identity: {method: pass_at_k}\nalso: {paec: {rho: 0.8}}", "pass_at_k+paec"),
        ("seed: 1", None),
    ],
)
def test_the_method_of_a_run(tmp_path, config, method):
    folder = write_run(tmp_path / "a")
    (folder / "config.yaml").write_text(config)
    assert read_run(folder).method == method


def test_a_name_of_the_command_line_wins(tmp_path):
    assert read_run(write_run(tmp_path / "a"), "mine").name == "mine"


def test_a_stopped_run_says_when_it_was_last_heard_of(tmp_path):
    folder = write_run(tmp_path / "a", last=3)
    (folder / "heartbeat.json").write_text('{"stage": "log-probs", "step": 4, "time": 0}')
    status = read_run(folder).status
    assert status.kind == "stopped"
    assert status.sentence.startswith("stopped at step 3 of 8; its last heartbeat was at 19")
    assert status.sentence.endswith("in stage 'log-probs'")


def test_a_failed_run_says_why(tmp_path):
    folder = write_run(tmp_path / "a", last=3)
    (folder / "failure.json").write_text('{"type": "RolloutFailed", "message": "long\\nthe engine died"}')
    status = read_run(folder).status
    assert (status.kind, status.sentence) == ("failed", "failed at step 3 of 8: RolloutFailed: the engine died")
    assert read_run(folder, ended="no heartbeat for 60 s").status.sentence == (
        "failed at step 3 of 8: no heartbeat for 60 s"
    )


def test_a_run_that_is_held_is_running(tmp_path):
    folder = write_run(tmp_path / "a", last=3)
    (folder / "heartbeat.json").write_text('{"stage": "rollout", "step": 4, "time": 0}')
    with folders.lock(folder, folder_kinds.RUN):
        assert read_run(folder).status.sentence == "running at step 3 of 8, in stage 'rollout'"
        assert read_run(folder, ended="").status.kind == "stopped", "the process that holds it knows that it has ended"
    assert read_run(folder).status.kind == "stopped"


def test_the_last_checkpoint_must_be_complete(tmp_path):
    folder = write_run(tmp_path / "a", trainer={"total_training_steps": 8, "save_freq": 4})
    (folder / "checkpoints" / "global_step_8").mkdir(parents=True)
    assert read_run(folder).status.kind == "stopped"
    (folder / "checkpoints" / "global_step_8" / "paec_state.json").write_text("{}")
    assert read_run(folder).status.kind == "finished"


def test_an_empty_run(tmp_path):
    (tmp_path / ".paec_folder.json").write_text('{"kind": "run"}')
    run = read_run(tmp_path)
    assert is_run(tmp_path) and run.status.kind == "empty" and run.last_step is None and run.records == ()
    assert run.remarks == (
        "metrics.jsonl is missing: no step was recorded",
        "config.yaml is missing",
        "versions.json is missing",
    )


def test_other_folders_are_no_runs(tmp_path):
    assert not is_run(tmp_path)
    (tmp_path / ".paec_folder.json").write_text('{"kind": "evaluation"}')
    assert not is_run(tmp_path)


@pytest.mark.parametrize(
    "text, steps, remark",
    [
        ('{"step": 1}\n{"step": 2, "a', [1], "the last line of metrics.jsonl is incomplete, and was left out"),
        ('{"step": 1}\n{"step": 2}', [1, 2], None),
        ('{"step": 1}\nnonsense\n{"step": 2}\n', [1, 2], "1 line(s) of metrics.jsonl are not a step's metrics"),
        ('{"step": 2}\n{"step": 1}\n{"step": 2}\n', [1, 2], "1 step(s) are in metrics.jsonl more than once"),
        ('[1]\n{"step": true}\n{"stp": 1}\n', [], "3 line(s) of metrics.jsonl are not"),
        ("", [], "metrics.jsonl has no complete line: no step was recorded"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, text, steps, remark):
    (tmp_path / "metrics.jsonl").write_text(text)
    remarks = []
    assert [entry["step"] for entry in read_records(tmp_path / "metrics.jsonl", remarks)] == steps
    assert remarks == [] if remark is None else remarks[0].startswith(remark)


def test_only_finite_numbers_are_values(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "a": NaN, "b": Infinity, "c": null, "d": "text", "e": true, "f": 2, "g": [1]}\n'
    )
    (entry,) = read_records(tmp_path / "metrics.jsonl", [])
    assert entry == {"step": 1, "a": None, "b": None, "c": None, "f": 2}


def test_what_older_runs_say_of_their_cut_off_responses(tmp_path):
    """The laboratory's share had verl's name; verl's own compares with the longest response of the step."""
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "response_length/clip_ratio": 0.25}\n'
        '{"step": 2, "response_length/clip_ratio": 0.5, "response_length_non_aborted/clip_ratio": 0.5}\n'
    )
    of_lab, of_pipeline = read_records(tmp_path / "metrics.jsonl", [])
    assert of_lab == {"step": 1, "reward/cut_off": 0.25}
    assert "reward/cut_off" not in of_pipeline and of_pipeline["response_length/clip_ratio"] == 0.5


def test_an_older_configuration(tmp_path):
    folder = write_run(tmp_path / "a")
    (folder / "config.yaml").write_text("seed: 3\ntrainer: 7\nlr: 5e-05\n")
    run = read_run(folder)
    assert run.setting("trainer.total_training_steps") is None and run.setting("lr") == 5e-05
    assert run.status.sentence == "stopped at step 8" and run.name == "a"


@pytest.mark.parametrize(
    "text, remark", [("a: [", "config.yaml cannot be read"), ("- 1", "config.yaml does not hold named values")]
)
def test_a_broken_configuration(tmp_path, text, remark):
    folder = write_run(tmp_path / "a")
    (folder / "config.yaml").write_text(text)
    run = read_run(folder)
    assert run.config == {} and run.remarks == (remark,)
    assert json.loads((folder / "versions.json").read_text()) == run.versions
