"""The order of a step's batch, and the prompts that are drawn for it."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batches import random_rollouts

from paec_loss import Method, MethodStack
from recipe.paec.common.errors import UserError


def test_batches_have_an_order_of_their_own():
    """By prompt, then sample, then output, as numbers; tags move with their keys."""
    from transfer_queue import KVBatchMeta

    from recipe.paec.driver.trainer import sample_in_order

    keys = ["000002-000001_10_0", "000002-000001_2_1", "000002-000001_2_0", "000002-000000_3_0"]
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{"seq_len": number} for number in range(4)])
    ordered, metrics = sample_in_order(lambda step: (batch, {"step": step}), step=2)
    assert ordered.keys == ["000002-000000_3_0", "000002-000001_2_0", "000002-000001_2_1", "000002-000001_10_0"]
    assert [tag["seq_len"] for tag in ordered.tags] == [3, 2, 1, 0]
    assert metrics == {"step": 2}


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
    trainer.heartbeat, trainer.stack = Heartbeat(tmp_path), MethodStack([Method()])
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
