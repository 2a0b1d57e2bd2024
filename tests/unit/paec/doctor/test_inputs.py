"""Bad models and bad data are named before anything starts."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pandas
import pytest
from checkpoint_worker import Canary
from doctor_cases import sharded

from recipe.paec.common import model_files
from recipe.paec.doctor import environment, inputs


def changed(file: Path, **fields) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_lost_shard(model, tiny_config):
    sharded(model)
    (model / "model-00002-of-00002.safetensors").unlink()
    (problem,) = inputs.check_model(tiny_config(f"model.path={model}"))
    assert f"model.path={model}: 1 of the 2 weight files in {model_files.INDEX} are missing (model-00002" in problem


@pytest.mark.parametrize(
    "file, fields, words",
    [
        ("config.json", {"vocab_size": 300}, "259 tokens, the model's embedding 300 rows"),
        ("config.json", {"vocab_size": 200}, "259 tokens, the model's embedding only 200 rows"),
        ("config.json", {"num_attention_heads": 8, "head_dim": None}, "16 wide, vLLM on cluster=cpu needs at least 32"),
        ("config.json", {"max_position_embeddings": 90}, "= 96 exceeds the model's context of 90 tokens (/"),
        ("tokenizer_config.json", {"eos_token": None}, "the tokenizer has no eos_token"),
    ],
)
def test_model_that_does_not_fit(model, tiny_config, file, fields, words):
    changed(model / file, **fields)
    (problem,) = inputs.check_inputs(tiny_config(f"model.path={model}", "model.context_length=0"))
    assert words in problem


def test_gpus_allow_a_padded_vocabulary(model, compose, tiny_files, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    changed(model / "config.json", vocab_size=300, num_attention_heads=8)
    config = compose("cluster=gpu_1x8", f"model.path={model}")
    assert inputs.check_inputs(config) == []


def rewritten(tiny_files, tmp_path, change) -> str:
    """The training file with one row changed, as a data.train_files override."""
    table = pandas.read_parquet(tiny_files / "data" / "train.parquet")
    rows = table.to_dict("records")
    change(rows[3])
    path = tmp_path / "changed.parquet"
    pandas.DataFrame(rows).to_parquet(path)
    return f"data.train_files=[{path}]"


@pytest.mark.parametrize(("cells", "problems"), [([b"png"], 1), ([], 0), (None, 0)])
def test_images_are_refused(tiny_files, tmp_path, tiny_config, cells, problems):
    override = rewritten(tiny_files, tmp_path, lambda row: row.update(images=cells))
    found = inputs.check_inputs(tiny_config(override))
    expected = f"data.train_files: {tmp_path / 'changed.parquet'}, field images: only text is supported: leave the "
    assert len(found) == problems and all(problem.startswith(expected) for problem in found)


THINKING = "{{ messages[-1]['content'] }}{% if long is defined %}{{ 'x' * 500 }}{% endif %}"


def test_prompts_are_measured_as_the_template_is_told(tiny_config):
    template = f"model.chat_template={json.dumps(THINKING)}"
    assert inputs.check_inputs(tiny_config(template)) == []
    found = inputs.check_inputs(tiny_config(template, "data.apply_chat_template_kwargs={long: true}"))
    assert len(found) == 2 and all(
        problem.startswith("data.max_prompt_length=") and "longer" in problem for problem in found
    )


def test_good_inputs_pass(tiny_config):
    assert inputs.check_inputs(tiny_config()) == []
    assert environment.check_versions() == []


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
    (problem,) = inputs.check_inputs(tiny_config("data.train_batch_size=128"))
    assert problem == (
        "data.train_files: 64 rows, fewer than data.train_batch_size=128: add rows, or lower data.train_batch_size to "
        "at most 64, of which actor_rollout_ref.actor.ppo_mini_batch_size must be a divisor"
    )


def test_too_few_of_the_rows_are_used(tiny_config):
    """data.train_max_samples rows are read, however many the files have."""
    assert inputs.check_data(tiny_config("data.train_max_samples=16"), None) == []
    assert inputs.check_data(tiny_config("data.train_max_samples=3"), None) == [
        "data.train_max_samples=3: fewer than data.train_batch_size=16: raise it, or lower data.train_batch_size to at "
        "most 3, of which actor_rollout_ref.actor.ppo_mini_batch_size must be a divisor"
    ]


@pytest.mark.parametrize("name", ["avg@8", "strict_avg", "pass@2", "metric/length"])
def test_a_metric_of_the_validation_can_decide_what_is_best(tiny_config, name):
    config = tiny_config(
        "actor_rollout_ref.rollout.val_kwargs.n=8", f"run.best_metric=val/reasoning_gym/countdown/{name}"
    )
    assert inputs.check_data(config, None) == []


@pytest.mark.parametrize(
    "metric",
    ["avg@8", "reasoning_gym/countdown/avg@8", "val/math/avg@8", "val/reasoning_gym/countdown/maj@4", "val/avg@8"],
)
def test_one_that_the_validation_cannot_give_is_named(tiny_config, metric):
    config = tiny_config("actor_rollout_ref.rollout.val_kwargs.n=8", f"run.best_metric={metric}")
    assert inputs.check_data(config, None) == [
        f"run.best_metric={metric}: must be a metric of the validation, such as val/reasoning_gym/countdown/avg@8"
    ]


def test_the_rows_of_all_training_files_count(tiny_config, tiny_files):
    file = tiny_files / "data" / "train.parquet"
    assert inputs.check_data(tiny_config(f"data.train_files=[{file},{file}]", "data.train_batch_size=128"), None) == []


@pytest.mark.parametrize("made", [True, False])
def test_adapters_go_to_layers_that_exist(made, compose, tiny_files, tmp_path, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files if made else tmp_path))
    to_come = None if made else tmp_path
    good = compose(
        "lora.rank=8", "lora.target_modules=[q_proj,mlp.down_proj]" if made else "lora.target_modules=[q_proj]"
    )
    assert inputs.check_inputs(good, to_come) == []
    (problem,) = inputs.check_inputs(compose("lora.rank=8", "lora.target_modules=[nope,q_proj,proj]"), to_come)
    assert problem.startswith("lora.target_modules: the model has no layer nope, proj; it has down_proj, ")


def test_training_data_is_not_executed(compose, tiny_files, tmp_path):
    file, canary = tmp_path / "train.parquet", tmp_path / "canary"
    file.write_bytes(pickle.dumps(Canary(canary)))
    config = compose(f"data.train_files={file}", f"data.val_files={tiny_files / 'data' / 'validation.parquet'}")
    problems = inputs.check_data(config, None)
    assert len(problems) == 1 and problems[0].startswith("data.train_files") and not canary.exists()


@pytest.fixture
def own_scorer(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "quiz_scorer.py").write_text(
        "def score(response, truth, extra):\n    return 1.0\n\n"
        "def two(response, truth):\n    return 1.0\n\n"
        "def needs(response, truth, extra):\n    return extra['level']\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"), prepend=os.pathsep)
    return tmp_path


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        ("quiz_scorer:score", None),
        ("quiz_scorer:two", "quiz_scorer:two: takes (response, truth): it is called with three arguments, (response, "),
        ("exact_match", None),
        ("quiz_scorer:nope", "reward.scorers.quiz: scorer quiz_scorer:nope: quiz_scorer has no nope"),
        ("nowhere:score", "reward.scorers.quiz: scorer nowhere:score: nowhere cannot be imported"),
        ("quiz_scorer:needs", "fails for an empty response and the ground truth '{"),
        ("multiple_choice", "row 3, field reward_model.ground_truth: '{"),
    ],
)
def test_own_scorers_are_tried_before_anything_starts(tiny_config, tiny_files, own_scorer, scorer, words):
    changed_row = rewritten(tiny_files, own_scorer, lambda row: row.update(data_source="quiz"))
    found = inputs.check_inputs(tiny_config(changed_row, f"reward.scorers.quiz={scorer}"))
    assert found == [] if words is None else len(found) == 1 and words in found[0], found


def test_one_pass_tells_everything_about_own_rows_and_their_scorers(tiny_config, tiny_files, own_scorer):
    """Too few rows, a source without a scorer, a misspelt function and two scorers of rows that do not exist."""
    override = rewritten(tiny_files, own_scorer, lambda row: row.update(data_source="quiz"))
    named = "reward.scorers={quiz: quiz_scorer:scor, quizz: quiz_scorer:needs, third: nowhere:score}"
    few, misspelt, *others = inputs.check_inputs(tiny_config(override, named, "data.train_batch_size=128"))
    assert few.startswith("data.train_files: 64 rows, fewer than data.train_batch_size=128: add rows, or lower")
    assert [problem.split(":")[0] for problem in (misspelt, *others)] == [
        *("reward.scorers.quizz", "reward.scorers.third", "reward.scorers.quiz", "reward.scorers.third")
    ]
    assert others[1].endswith("scorer quiz_scorer:scor: quiz_scorer has no scor; did you mean quiz_scorer:score?")
    assert "nowhere cannot be imported" in others[2]
    unnamed, few = inputs.check_inputs(tiny_config(override, "data.train_batch_size=128"))
    assert "no scorer for data_source 'quiz': add reward.scorers.quiz=package.module:function" in unnamed


def test_own_rows_are_checked_before_the_run_creates_the_rest(compose, tiny_files, own_scorer, monkeypatch):
    """The model and the validation file do not exist yet; the problems are those of the training file alone."""
    override = rewritten(tiny_files, own_scorer, lambda row: row.update(data_source="quiz"))
    monkeypatch.setenv("PAEC_TINY_DIR", str(own_scorer / "later"))
    scorer = "reward.scorers.quiz=quiz_scorer:two"
    few, scored = inputs.check_inputs(compose(override, scorer, "data.train_batch_size=128"), own_scorer / "later")
    assert "64 rows, fewer than" in few and "takes (response, truth)" in scored


def test_a_scorer_for_rows_that_do_not_exist_is_named(tiny_config):
    (problem,) = inputs.check_inputs(tiny_config("reward.scorers.quizz=exact_match"))
    assert problem == (
        "reward.scorers.quizz: no row of data.train_files and data.val_files has this data_source; they have "
        "reasoning_gym/countdown"
    )
