"""A run resumes from its newest intact checkpoint, and from no other run's."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from made_checkpoints import complete
from omegaconf import OmegaConf

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


@pytest.fixture
def mine(tiny_config, tmp_path):
    """mine("key=value", ...) -> the configuration of the next start of a run that was trained for four steps."""
    base = tiny_config("run.name=mine")
    base.run.directory, base.trainer.default_local_dir = str(tmp_path), str(tmp_path / "checkpoints")
    base.identity = config_identity.identity(base)
    complete(tmp_path / "checkpoints", 4, OmegaConf.to_container(base.identity))
    resume.write_provenance(base, tmp_path)

    def again(*overrides):
        config = base.copy()
        for override in overrides:
            key, _, value = override.partition("=")
            OmegaConf.update(config, key, yaml.safe_load(value))
        config.identity = config_identity.identity(config)
        return config

    return again


def test_other_settings_than_at_the_last_start(mine, tmp_path):
    """Each is named with both values, although the checkpoint's identity does not hold them."""
    other = ["actor_rollout_ref.actor.optim.lr=0.001", "data.train_max_samples=64", "algorithm.adv_estimator=rloo"]
    with pytest.raises(UserError) as error:
        resume.find_resume(mine(*other, "trainer.v1.sampler.max_off_policy_threshold=2"))
    assert str(error.value) == (
        f"{tmp_path} was trained with other settings: actor_rollout_ref.actor.optim.lr was 5e-05 and is 0.001, "
        "algorithm.adv_estimator was 'grpo' and is 'rloo', data.train_max_samples was -1 and is 64, "
        "trainer.v1.sampler.max_off_policy_threshold was 8 and is 2. Give them as they were, give this run its own "
        "name (run.name=...), or start over with run.fresh=true, which deletes the old run"
    )


def test_what_may_change_between_two_starts(mine, tiny_files, tmp_path):
    longer = ["trainer.total_training_steps=500", "trainer.save_freq=1", "trainer.test_freq=2", "run.stall_timeout=9"]
    assert resume.find_resume(mine(*longer))[0].step == 4
    shutil.copytree(tiny_files / "model", tmp_path / "moved")
    moved = [f"{key}={tmp_path / 'moved'}" for key in ("model.path", "actor_rollout_ref.model.path")]
    assert resume.find_resume(mine(*moved))[0].step == 4
    file = tmp_path / "config.yaml"  # of a version with another name of a method's field, which the identity knows
    recorded = OmegaConf.load(file)
    recorded.method.rho = recorded.actor_rollout_ref.actor.fsdp_config.methods[0].rho = 0.1
    file.write_text(OmegaConf.to_yaml(recorded))
    assert resume.find_resume(mine())[0].step == 4


def test_a_first_start_has_nothing_to_agree_with(mine, tmp_path):
    shutil.rmtree(tmp_path / "checkpoints")
    assert resume.find_resume(mine("actor_rollout_ref.rollout.n=4")) == (None, [])


@pytest.mark.parametrize("key, file", [("model", "model.safetensors"), ("data.train_files", "train.parquet")])
def test_another_content_of_the_same_size(mine, tiny_files, tmp_path, key, file):
    """Warm-started again, or prepared again, at the same place."""
    (folder,) = {path.parent for path in tiny_files.rglob(file)}
    shutil.copytree(folder, tmp_path / "copy")
    content = bytearray((tmp_path / "copy" / file).read_bytes())
    content[-1] ^= 1
    config = mine()
    if key == "model":
        config.model.path = str(tmp_path / "copy")
    else:
        config.data.train_files = [str(tmp_path / "copy" / file)]
        state = tmp_path / "checkpoints" / "global_step_4" / "paec_state.json"
        state.write_text(state.read_text().replace(str(folder / file), str(tmp_path / "copy" / file)))
        recorded = OmegaConf.load(tmp_path / "config.yaml")
        recorded.data.train_files = list(config.data.train_files)
        (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(recorded))
    config.identity = config_identity.identity(config)
    assert resume.find_resume(config)[0].step == 4
    (tmp_path / "copy" / file).write_bytes(content)
    config.identity = config_identity.identity(config)
    with pytest.raises(UserError, match=rf"belongs to another run: {key} \(content\) is '"):
        resume.find_resume(config)


def test_a_checkpoint_from_before_contents_were_recorded(mine, tmp_path):
    state = tmp_path / "checkpoints" / "global_step_4" / "paec_state.json"
    content = json.loads(state.read_text())
    for key in config_identity.CONTENTS:
        assert content["identity"].pop(key)
    state.write_text(json.dumps(content))
    assert resume.find_resume(mine())[0].step == 4
