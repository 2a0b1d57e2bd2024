"""The order of a step's batch."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from batches import random_rollouts

from paec_loss import Method, MethodStack


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
