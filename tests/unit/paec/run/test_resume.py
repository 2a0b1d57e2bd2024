"""A run resumes from its newest intact checkpoint, and from no other run's."""

from __future__ import annotations

import shutil

import pytest
from made_checkpoints import complete

from recipe.paec.common.errors import UserError
from recipe.paec.config import identity as config_identity
from recipe.paec.run import checkpoints, resume


@pytest.fixture
def tiny_config(compose, tiny_files, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    return lambda *overrides: compose(*overrides)


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
