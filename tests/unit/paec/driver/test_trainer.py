"""The prompts that are drawn for a step, its rewards, and what its checkpoint holds."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batches import random_rollouts
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta

from paec_loss import Method, MethodStack
from paec_loss.methods.none import NoMethod
from recipe.paec.common.errors import UserError
from recipe.paec.run import checkpoints


@dataclass(frozen=True)
class InPlace(Method):
    """Changes the rewards that it is given, and keeps those that it reads for the loss."""

    def rewards(self, rollouts):
        rollouts.rewards.mul_(2)
        return rollouts.rewards

    def response_value(self, rollouts):
        return rollouts.rewards


def test_a_reward_hook_in_place_leaves_the_graded_rewards(monkeypatch):
    """The estimator gets the doubled rewards, the number of every response is of the graded ones."""
    from recipe.paec.driver import queue_io
    from recipe.paec.driver.trainer import PAECTrainer, PPOTrainerSync

    rollouts, put, values = random_rollouts(), [], {}
    graded = rollouts.rewards.clone()
    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", lambda self, batch, metrics: batch)
    monkeypatch.setattr(queue_io, "read_rewards", lambda batch: (rollouts.rewards, "scores"))
    monkeypatch.setattr(queue_io, "put_rewards", lambda batch, rewards, scores: put.append(rewards))
    monkeypatch.setattr(queue_io, "put_scores", lambda batch, scores: put.append(scores))
    monkeypatch.setattr(queue_io, "read_advantages", lambda batch, length: rollouts.advantages)
    monkeypatch.setattr(queue_io, "_put", lambda batch, columns: values.update(columns))
    trainer = object.__new__(type("Trainer", (PAECTrainer, PPOTrainerSync), {}))
    trainer.stack, trainer.trackers, trainer.rollouts = MethodStack([InPlace()]), {}, [rollouts]
    trainer.recorder, trainer.tokenizer = SimpleNamespace(take_outcome=lambda batch, tokenizer: None), None
    metrics: dict[str, float] = {}
    trainer._compute_advantage(None, metrics)
    assert torch.equal(put[0], 2 * graded) and put[1] == "scores"
    assert torch.equal(values[queue_io.RESPONSE_VALUE], graded.float())
    assert metrics == {f"actor/{trainer.stack.names[0]}/reward": 2 * graded.mean().item()}


def test_what_was_cut_off_is_known_without_a_log_prob_pass(monkeypatch):
    """By the run's limit, and not by the longest response of the step, with which verl's clip_ratio compares."""
    from recipe.paec.driver.trainer import PAECTrainer, PPOTrainerSync

    info = {"acc": 1.0, "score": 1.0, "format": 1.0, "grader_error": 0.0, "grader_timeout": 0.0, "repetition": 0.0}
    monkeypatch.setattr(PPOTrainerSync, "_compute_old_log_prob", lambda self, batch, metrics: batch)
    trainer = object.__new__(type("Trainer", (PAECTrainer, PPOTrainerSync), {}))
    trainer._record_validation = lambda stage: None
    trainer.heartbeat = SimpleNamespace(beat=lambda stage, step: None)
    trainer.recorder = SimpleNamespace(ask=lambda batch: None, take_statistics=lambda batch, vocabulary, read: None)
    trainer.prompt_recorder = SimpleNamespace(take=lambda batch: [info] * 4, sources=["math"] * 4)
    trainer.stack, trainer.trackers, trainer.rollouts = MethodStack([NoMethod()]), {}, []
    trainer.global_steps, trainer.vocab_size = 1, 26
    shares = []
    for limit in (32, 23):
        trainer.config = OmegaConf.create({"data": {"max_response_length": limit}})
        tags = [{"response_len": length} for length in (23, 20, 18, 19)]
        metrics: dict[str, float] = {}
        keys = [f"a_{number}_0" for number in range(4)]
        trainer._compute_old_log_prob(KVBatchMeta(keys=keys, tags=tags, partition_id="train"), metrics)
        shares.append(metrics["reward/cut_off"])
    assert shares == [0.0, 0.25]


def drawing_trainer(monkeypatch, tmp_path, rows: int, filtered: bool = True):
    """A trainer in step 4 that draws the rows of a file in their order, again and again."""
    from verl.utils import tensordict_utils

    from recipe.paec.driver.draws import Draws
    from recipe.paec.driver.trainer import PAECTrainerSync, PPOTrainerSync
    from recipe.paec.run.log import Heartbeat

    drawn = itertools.cycle(range(rows))

    def next_batch(self, count):
        index = np.array([next(drawn) for _ in range(count or 2)], dtype=object)
        columns = {"index": index, "data_source": np.array(["math"] * len(index), dtype=object)}
        return tensordict_utils.get_tensordict({**columns, "uid": columns["data_source"]})

    monkeypatch.setattr(PPOTrainerSync, "_next_train_batch", next_batch)
    trainer = object.__new__(PAECTrainerSync)
    trainer.global_steps, trainer.draws, trainer.train_dataset = 4, Draws(filtered), range(rows)
    trainer.heartbeat, trainer.stack = Heartbeat(tmp_path), MethodStack([NoMethod()])
    return trainer


def test_a_row_that_comes_again_within_a_step_says_so(monkeypatch, tmp_path):
    """Names go on; in the next step, and where no prompts are replaced, it is new."""
    trainer = drawing_trainer(monkeypatch, tmp_path, rows=3)
    first, second, third = (trainer._next_train_batch(count) for count in (None, 2, 2))
    assert list(first["uid"]) == ["000004-000000", "000004-000001"] and "earlier_draws" not in first
    assert list(second["uid"]) == ["000004-000002", "000004-000003"] and list(second["earlier_draws"]) == [0, 1]
    assert list(third["earlier_draws"]) == [1, 1]
    trainer.global_steps = 5
    assert "earlier_draws" not in trainer._next_train_batch(None)
    trainer = drawing_trainer(monkeypatch, tmp_path, rows=3, filtered=False)
    assert not any("earlier_draws" in trainer._next_train_batch(count) for count in (None, 2, 2))


def test_a_step_that_replaces_a_whole_epoch_ends_the_run(monkeypatch, tmp_path):
    trainer = drawing_trainer(monkeypatch, tmp_path, rows=3)
    for count in (None, 2, 2):
        trainer._next_train_batch(count)
    message = "enable=true: step 4 has drawn 6 prompts from a file of 3, and too few of them .* set it to false, or"
    with pytest.raises(UserError, match=message):
        trainer._next_train_batch(1)
    trainer.global_steps = 5
    trainer._next_train_batch(None)


def test_every_draw_is_a_sign_of_life(monkeypatch, tmp_path):
    trainer = drawing_trainer(monkeypatch, tmp_path, rows=9)
    beats = []
    for count in (None, 2):
        trainer._next_train_batch(count)
        beats.append(json.loads((tmp_path / "heartbeat.json").read_text()))
    assert [(beat["stage"], beat["step"]) for beat in beats] == [("rollout", 4)] * 2
    assert beats[0]["time"] < beats[1]["time"]


def committing_trainer(tmp_path, **algorithm):
    """A trainer after step 6, whose checkpoint verl has written."""
    from recipe.paec.driver.trainer import PAECTrainerSync

    trainer = object.__new__(PAECTrainerSync)
    trainer.config = OmegaConf.create(
        {
            "run": {"best_metric": None, "keep_checkpoints": 2, "keep_best": 1},
            "trainer": {"save_freq": 2, "resume_from_path": None},
            "algorithm": {"use_kl_in_reward": False, "kl_ctrl": {"type": "fixed"}} | algorithm,
        }
    )
    trainer.run_directory, trainer.checkpoint_root = tmp_path, tmp_path / "checkpoints"
    trainer.identity, trainer.trackers, trainer._dump_futures = {"workers": 1}, {}, []
    trainer.global_steps, trainer.uncommitted_step, trainer.last_checkpoint = 6, 6, None
    folder = tmp_path / "checkpoints" / "global_step_6" / "actor"
    folder.mkdir(parents=True)
    (folder / "model_world_size_1_rank_0.pt").write_bytes(b"weights")
    return trainer


def test_a_wrong_best_metric_ends_the_run_after_its_checkpoint(tmp_path):
    trainer = committing_trainer(tmp_path)
    trainer.config.run.best_metric = "val/math/avg@8"
    with pytest.raises(UserError, match="run.best_metric=val/math/avg@8: must be one of val/math/avg@4, which"):
        trainer._step_recorded({"step": 6, "val/math/avg@4": 0.5})
    checkpoint, damaged = checkpoints.latest(tmp_path / "checkpoints")
    assert checkpoint.step == trainer.last_checkpoint == 6 and checkpoint.score is None and damaged == []


@pytest.mark.parametrize("kind, value", [("adaptive", 0.25), ("fixed", 0.001)])
def test_the_adaptive_kl_coefficient_goes_on_after_a_resume(tmp_path, monkeypatch, kind, value):
    from recipe.paec.driver.trainer import RecordsValidations

    trainer = committing_trainer(tmp_path, use_kl_in_reward=True, kl_ctrl={"type": kind})
    trainer.kl_ctrl_in_reward = SimpleNamespace(value=np.float64(0.25))
    trainer._step_recorded({"step": 6})
    monkeypatch.setattr(RecordsValidations, "_load_checkpoint", lambda self: None)
    trainer.kl_ctrl_in_reward = SimpleNamespace(value=0.001)
    trainer._load_checkpoint()
    assert trainer.kl_ctrl_in_reward.value == value
