"""Every mode of the trainer is one word."""

from __future__ import annotations

import pytest

from recipe.paec.common.repository import CONFIGS
from recipe.paec.config import rules
from recipe.paec.config.identity import trainer_mode
from recipe.paec.config.schema import TRAINER_MODES


@pytest.mark.parametrize("mode", TRAINER_MODES)
def test_every_mode_is_one_word(compose, mode):
    config = compose(f"mode={mode}")
    assert rules.check_config(config) == []
    assert config.trainer.v1.trainer_mode == TRAINER_MODES[mode] and trainer_mode(config) == mode
    rollout = config.actor_rollout_ref.rollout
    separate = ("gloo", 1, 1) if mode == "separate_async" else ("naive", 0, 1)
    assert (rollout.checkpoint_engine.backend, rollout.nnodes, rollout.n_gpus_per_node) == separate


def test_every_mode_has_a_file():
    assert {path.stem for path in (CONFIGS / "mode").glob("*.yaml")} == set(TRAINER_MODES)
