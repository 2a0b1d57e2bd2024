"""What is evaluated: a run, a checkpoint, a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.evaluate import settings, targets
from recipe.paec.evaluate.folder import identity_of


@pytest.fixture
def run_directory(tmp_path, tiny_files) -> Path:
    """A run with complete checkpoints at 2 and 4 and the remains of one at 6."""
    run = tmp_path / "outputs" / "some-run"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        f"model: {{path: {tiny_files / 'model'}, chat_template: null}}\ndata: {{train_files: [/gone.parquet]}}\n"
    )
    for step in (2, 4, 6):
        (run / "checkpoints" / f"global_step_{step}" / "actor").mkdir(parents=True)
        (run / "checkpoints" / f"global_step_{step}" / "actor" / "model.pt").write_bytes(bytes([step]))
    (run / ".paec_folder.json").write_text('{"kind": "run", "experiment": "tiny_cpu", "name": "some-run"}')
    for step in (2, 4):
        targets.checkpoints.commit(run / "checkpoints", step, {}, None)
    return run


def test_targets_of_a_run(evaluation, run_directory, tiny_files):
    config = evaluation(f"model={run_directory}", "benchmarks=[a]")
    found = targets.find_targets(config, "luffy-a")
    assert [(t.step, t.is_checkpoint) for t in found] == [(0, False), (2, True), (4, True)]
    assert found[0].folder == tiny_files / "model"
    assert [t.output for t in found] == [run_directory / "evaluation" / "luffy-a" / f"step_{s}" for s in (0, 2, 4)]
    some = evaluation(f"model={run_directory}", "benchmarks=[a]", "steps=[4]", "output=/tmp/somewhere")
    (only,) = targets.find_targets(some, "luffy-a")
    assert only.step == 4 and only.output == Path("/tmp/somewhere/step_4")
    wrong = evaluation(f"model={run_directory}", "benchmarks=[a]", "steps=[3,4]")
    with pytest.raises(UserError, match=r"steps=\[3\].* has the steps 0, 2, 4 "):
        targets.find_targets(wrong, "luffy-a")


def test_a_run_is_evaluated_with_its_own_chat_template(evaluation, run_directory):
    """Also its step 0, whose tokenizer knows nothing of it; a template on the command line comes first."""
    plain = evaluation(f"model={run_directory}", "benchmarks=[a]")
    start = targets.find_targets(plain, "luffy-a")[0]
    assert settings.as_trained(plain, start).chat_template is None
    file = run_directory / "config.yaml"
    file.write_text(file.read_text().replace("chat_template: null", "chat_template: '{{ messages }}'"))
    assert settings.as_trained(plain, start).chat_template == "{{ messages }}"
    given = evaluation(f"model={run_directory}", "benchmarks=[a]", "chat_template=mine")
    assert settings.as_trained(given, start).chat_template == "mine"


def test_a_run_is_evaluated_on_the_prompts_it_was_trained_on(evaluation, run_directory):
    """What its template was told, unless the command line tells it something; then it is another evaluation."""
    plain = evaluation(f"model={run_directory}", "benchmarks=[a]")
    start = targets.find_targets(plain, "luffy-a")[0]
    assert settings.as_trained(plain, start).apply_chat_template_kwargs == {}
    before = identity_of(settings.as_trained(plain, start), start, {})
    assert "apply_chat_template_kwargs" not in before, "evaluations from before stay what they are"
    file = run_directory / "config.yaml"
    data = "{train_files: [/gone.parquet], apply_chat_template_kwargs: {enable_thinking: false}}"
    file.write_text(file.read_text().replace("{train_files: [/gone.parquet]}", data))
    config = settings.as_trained(plain, start)
    assert config.apply_chat_template_kwargs == {"enable_thinking": False} and config.chat_template is None
    assert identity_of(config, start, {}) == before | {"apply_chat_template_kwargs": {"enable_thinking": False}}
    given = evaluation(f"model={run_directory}", "benchmarks=[a]", "+apply_chat_template_kwargs.enable_thinking=true")
    assert settings.as_trained(given, start).apply_chat_template_kwargs == {"enable_thinking": True}


def test_target_of_a_checkpoint(evaluation, run_directory):
    checkpoint = run_directory / "checkpoints" / "global_step_4"
    (target,) = targets.find_targets(evaluation(f"model={checkpoint}", "benchmarks=[a]"), "luffy-a")
    assert (target.step, target.run, target.is_checkpoint) == (4, run_directory, True)
    remains = run_directory / "checkpoints" / "global_step_6"
    broken = run_directory / "checkpoints" / "global_step_2"
    (broken / "paec_state.json").write_text("{")
    with pytest.raises(UserError, match="is damaged: paec_state.json cannot be read"):
        targets.find_targets(evaluation(f"model={broken}", "benchmarks=[a]"), "luffy-a")
    with pytest.raises(UserError, match=r"steps=\[4\]: model=.* is not the folder of a run: leave steps= out"):
        targets.find_targets(evaluation(f"model={checkpoint}", "benchmarks=[a]", "steps=[4]"), "luffy-a")
    with pytest.raises(UserError, match="its save was interrupted"):
        targets.find_targets(evaluation(f"model={remains}", "benchmarks=[a]"), "luffy-a")


def test_target_of_a_folder(evaluation, tiny_files, tmp_path):
    (target,) = targets.find_targets(evaluation(f"model={tiny_files / 'model'}", "benchmarks=[a]"), "luffy-a")
    assert (target.step, target.run, target.is_checkpoint) == (None, None, False)
    assert target.output == Path("outputs/evaluation/model-luffy-a")
    assert targets.context_of(evaluation("model=m", "benchmarks=[a]"), target.folder) == 512
    assert targets.context_of(evaluation("model=m", "benchmarks=[a]", "context_length=64"), target.folder) == 64
    with pytest.raises(UserError, match="hf download nobody/nothing"):
        targets.find_targets(evaluation("model=nobody/nothing", "benchmarks=[a]"), "luffy-a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no config.json"):
        targets.find_targets(evaluation(f"model={tmp_path / 'empty'}", "benchmarks=[a]"), "luffy-a")


def test_revision_of_a_hub_model(tmp_path):
    assert targets.revision(tmp_path / "models--a--b" / "snapshots" / "0f1e") == "0f1e"
    assert targets.revision(tmp_path / "model") is None


def test_targets_by_relative_paths(evaluation, run_directory, tiny_files, monkeypatch):
    """The run has its name and its place, wherever one is."""

    def found(*arguments: str) -> list[tuple[int | None, Path | None]]:
        config = evaluation(*arguments, "benchmarks=[a]")
        return [(target.step, target.run) for target in targets.find_targets(config, "luffy-a")]

    monkeypatch.chdir(run_directory)
    assert found("model=.", "steps=[2,4]") == [(2, run_directory), (4, run_directory)]
    monkeypatch.chdir(run_directory / "checkpoints" / "global_step_2")
    assert found("model=.") == [(2, run_directory)] and found("model=../global_step_4") == [(4, run_directory)]
    export = shutil.copytree(tiny_files / "model", run_directory / "huggingface")
    (export / "paec_export.json").write_text('{"run": "some-run", "step": 4}')
    monkeypatch.chdir(export)
    assert found("model=.") == [(4, run_directory)]
    monkeypatch.chdir(run_directory / "checkpoints" / "global_step_6")
    with pytest.raises(UserError, match="its save was interrupted"):
        found("model=.")


def test_the_folder_of_another_tool_is_no_run(evaluation, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("trainer: {max_steps: 5}\n")
    with pytest.raises(UserError, match="has no config.json, so it is not a Hugging Face model folder"):
        targets.find_targets(evaluation(f"model={tmp_path}", "benchmarks=[a]"), "luffy-a")
