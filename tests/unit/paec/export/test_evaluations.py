"""Which evaluations a card reports: those of this very model."""

from __future__ import annotations

import shutil

import pytest
from export_cases import STEP, evaluated, saved

from recipe.paec.common.errors import UserError
from recipe.paec.export.evaluations import evaluations_of


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of a run whose model is two small files."""
    run = saved(tmp_path / "run", STEP)
    (run / "config.yaml").write_text("model: {path: m}\n")
    (run / "checkpoints" / f"global_step_{STEP}" / "actor").mkdir()
    (run / "checkpoints" / f"global_step_{STEP}" / "actor" / "model_world_size_1_rank_0.pt").write_text("weights")
    return run / "checkpoints" / f"global_step_{STEP}"


def test_those_of_the_run_are_found(checkpoint):
    run = checkpoint.parents[1]
    evaluated(run / "evaluation" / "luffy-aime24" / f"step_{STEP}", checkpoint)
    evaluated(run / "evaluation" / "dapo-aime24" / f"step_{STEP}", checkpoint)
    evaluated(run / "evaluation" / "dapo-aime24" / "step_1", checkpoint.parent)
    found = evaluations_of(checkpoint, STEP, [], [])
    assert [evaluation.path.parent.parent.name for evaluation in found] == ["dapo-aime24", "luffy-aime24"]


def test_a_named_one_may_be_of_an_export(checkpoint, tmp_path):
    exported = tmp_path / "model"
    exported.mkdir()
    (exported / "model.safetensors").write_text("weights")
    scores = evaluated(tmp_path / "e", exported)
    with pytest.raises(UserError, match="e: evaluated the model .*/model, which is not .*global_step_3 as it is now: "):
        evaluations_of(checkpoint, STEP, [tmp_path / "e"], [])
    (found,) = evaluations_of(checkpoint, STEP, [tmp_path / "e"], [exported])
    assert found.scores["benchmarks"].keys() == scores["benchmarks"].keys()


def test_there_is_none(checkpoint, tmp_path):
    message = "^no evaluation of .*global_step_3 in .*run/evaluation: run paec evaluate model=.*--evaluation$"
    with pytest.raises(UserError, match=message):
        evaluations_of(checkpoint, STEP, [], [])
    with pytest.raises(UserError, match="nowhere/scores.json does not exist: evaluate the model$"):
        evaluations_of(checkpoint, STEP, [tmp_path / "nowhere"], [])
    shutil.copytree(checkpoint, tmp_path / "alone")
    with pytest.raises(UserError, match="^no evaluation of .*alone: run paec evaluate"):
        evaluations_of(tmp_path / "alone", STEP, [], [])


def test_the_model_of_a_file_of_samples_is_not_known(checkpoint, tmp_path):
    evaluated(tmp_path / "e", checkpoint, model=None, model_fingerprint=None)
    with pytest.raises(UserError, match="evaluated samples whose model is not known"):
        evaluations_of(checkpoint, STEP, [tmp_path / "e"], [])


def test_another_checkpoint_in_the_same_place(checkpoint):
    evaluated(checkpoint.parents[1] / "evaluation" / "luffy-aime24" / f"step_{STEP}", checkpoint)
    (checkpoint / "actor" / "model_world_size_1_rank_0.pt").write_text("WEIGHTS")
    with pytest.raises(UserError, match="which is not .* as it is now"):
        evaluations_of(checkpoint, STEP, [], [])
