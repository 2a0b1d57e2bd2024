"""Entropy by outcome from rows of the queue, and from statistics that were read anyway."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import random_rollouts
from omegaconf import OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from paec_loss import Rollouts
from recipe.paec.driver import queue_io
from recipe.paec.driver.entropy_metrics import add_entropy

CONFIG = OmegaConf.create({"data": {"max_response_length": 3}})
BATCH = KVBatchMeta(
    keys=["a_0_0", "a_1_0", "b_0_0", "pad_0_0"],
    tags=[*({"response_len": length} for length in (2, 1, 3)), {"response_len": 1, "is_padding": True}],
    partition_id="train",
)
INFOS = [{"acc": 1.0}, {"acc": 0.0}, {"acc": 0.5}, {"acc": 1.0}]
SOURCES = ["gsm8k", "gsm8k", "math", "gsm8k"]


@pytest.fixture
def queue(monkeypatch):
    """Entropies of three responses and of padding; the second token of the last response is a tool's."""

    def get(keys, partition_id, select_fields):
        assert (keys, partition_id, select_fields) == (BATCH.keys, "train", ["entropy", "response_mask"])
        rows = {
            "entropy": [[0.5, 1.0], [2.0], [3.0, 50.0, 5.0], [99.0]],
            "response_mask": [[1, 1], [1], [1, 0, 1], [1]],
        }
        nested = {
            name: torch.nested.as_nested_tensor([torch.tensor(row) for row in of], layout=torch.jagged)
            for name, of in rows.items()
        }
        return TensorDict(nested, batch_size=len(keys))

    monkeypatch.setattr(queue_io.tq, "kv_batch_get", get)


def test_rows_of_the_queue(queue):
    """Half a score is not right; the response with a tool's token is as long as allowed; padding does not count."""
    metrics = {"actor/entropy": 1.0}
    add_entropy(metrics, BATCH, INFOS, SOURCES, [], CONFIG)
    assert metrics == {
        "actor/entropy": 1.0,
        "actor/entropy/right": 0.75,
        "actor/entropy/wrong": pytest.approx(10 / 3),
        "actor/entropy/truncated": 4.0,
        "actor/entropy/gsm8k": pytest.approx(3.5 / 3),
        "actor/entropy/math": 4.0,
    }


def test_without_a_log_prob_pass_there_is_none():
    metrics = {"actor/lr": 1.0}
    add_entropy(metrics, BATCH, INFOS, SOURCES, [], CONFIG)
    assert metrics == {"actor/lr": 1.0}


def test_statistics_that_a_method_has_had_fetched():
    """Those of the last pass, without asking the queue again."""
    rollouts = random_rollouts(4)
    inside = torch.tensor([[True, True, False]] * 4)
    entropy = torch.tensor([[0.5, 1.0, 9.0], [2.0, 2.0, 9.0], [3.0, 5.0, 9.0], [99.0, 99.0, 9.0]])
    statistics = replace(rollouts.statistics.map(lambda values: values[:4, :3]), entropy=entropy)
    last = Rollouts(
        statistics,
        inside,
        group_id=torch.tensor([0, 0, 1, 1]),
        step=4,
        seed=0,
        tokens=torch.zeros(4, 3, dtype=torch.int64),
    )
    metrics = {"actor/entropy": 1.0}
    batch = KVBatchMeta(keys=BATCH.keys, tags=[{"response_len": 2}] * 3 + BATCH.tags[3:], partition_id="train")
    add_entropy(metrics, batch, INFOS, ["gsm8k"] * 4, [rollouts, last], CONFIG)
    assert metrics == {"actor/entropy": 1.0, "actor/entropy/right": 0.75, "actor/entropy/wrong": 3.0}
