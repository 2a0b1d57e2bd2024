"""The order of a step's batch, and what the actor may fetch of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from batches import random_rollouts
from omegaconf import OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from paec_loss import Method, MethodStack
from paec_loss.methods import METHODS
from paec_loss.statistics import TokenStatistics
from recipe.grading.pool import GraderPool
from recipe.paec.actor.batches import QUEUED_FIELDS, RESPONSE_NUMBER, RESPONSE_VALUE
from recipe.paec.driver import queue_io
from recipe.paec.driver.queue_io import for_the_actor

CONFIG = OmegaConf.create({"seed": 1, "reward": {"scorers": {}}, "data": {"max_response_length": 3}})


def test_the_actor_gets_tensors_only():
    batch = KVBatchMeta(keys=["a_0_0"], tags=[{}], partition_id="train")
    assert for_the_actor(batch) is batch and batch.keys == ["a_0_0"]
    assert {"input_ids", "position_ids", "loss_mask", "advantages", "ref_log_prob", RESPONSE_NUMBER} <= {*batch.fields}
    assert {*QUEUED_FIELDS, RESPONSE_VALUE} <= {*batch.fields}
    assert not {"returns", "rm_scores", "token_level_rewards", "values"} & {*batch.fields}, "of no use to the actor"
    objects = {"uid", "raw_prompt", "reward_model", "extra_info", "data_source", "extra_fields", "metrics"}
    assert not objects & {*batch.fields}


def test_batches_have_an_order_of_their_own():
    """By prompt, then sample, then output, as numbers; tags move with their keys."""
    keys = ["000002-000001_10_0", "000002-000001_2_1", "000002-000001_2_0", "000002-000000_3_0"]
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{"seq_len": number} for number in range(4)])
    ordered, metrics = queue_io.sample_in_order(lambda step: (batch, {"step": step}), step=2)
    assert ordered.keys == ["000002-000000_3_0", "000002-000001_2_0", "000002-000001_2_1", "000002-000001_10_0"]
    assert [tag["seq_len"] for tag in ordered.tags] == [3, 2, 1, 0]
    assert metrics == {"step": 2}


def test_what_the_methods_make_of_the_outcome(monkeypatch):
    """Advantages change first; the number of a response is of its graded reward, also where a method changed it."""
    rollouts = random_rollouts(4)
    inside, put = rollouts.response_mask, {}
    queue = {
        "advantages": torch.nested.as_nested_tensor(
            [r[m] for r, m in zip(rollouts.advantages, inside, strict=True)], layout=torch.jagged
        ),
        "response_mask": torch.nested.as_nested_tensor([m[m].long() for m in inside], layout=torch.jagged),
    }
    monkeypatch.setattr(queue_io, "get", lambda batch, names: TensorDict({n: queue[n] for n in names}, len(inside)))
    monkeypatch.setattr(queue_io, "_put", lambda batch, columns: put.update(columns))
    graded = rollouts.rewards
    changed = rollouts.__class__(**{**vars(rollouts), "rewards": 1 - graded, "advantages": None})
    queue_io.put_outcome(None, MethodStack([METHODS["aer"](), METHODS["w_reinforce"]()]), changed, graded)
    assert put.keys() == {"advantages", RESPONSE_VALUE}
    expected = METHODS["w_reinforce"]().advantages(rollouts)[inside].float()
    torch.testing.assert_close(put["advantages"].values(), expected)
    assert torch.equal(put[RESPONSE_VALUE], METHODS["aer"]().response_value(rollouts).float())
    assert put[RESPONSE_VALUE].dtype == torch.float32 and 0 < put[RESPONSE_VALUE].sum() < len(inside)
    put.clear()
    queue_io.put_outcome(None, MethodStack([METHODS["empo"]()]), changed, graded)
    assert put == {}
    told = MethodStack([Told()])
    queue_io.put_outcome(None, told, changed, graded, {told.names[0]: {"told": 3.0}})
    torch.testing.assert_close(put["advantages"].values(), (rollouts.advantages + 3.0)[inside].float())
    assert torch.equal(put[RESPONSE_VALUE], (graded + 3.0).float())


@dataclass(frozen=True)
class Told(Method):
    """Adds what its tracker says."""

    def advantages(self, rollouts):
        return rollouts.advantages + rollouts.tracker_signal["told"]

    def response_value(self, rollouts):
        return rollouts.rewards + rollouts.tracker_signal["told"]


@pytest.mark.parametrize(("name", "reads"), [("ares", True), ("epo", False)])
def test_graded_rewards_are_read_for_trackers_that_need_them(monkeypatch, name, reads):
    """The sum of a response's scores, in the order of the keys; nobody else pays for it."""
    rows, asked = [[0.0, 0.5], [0.0, 0.0, 1.0]], []

    def nested(rows):
        return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)

    inside = torch.tensor([[True, True, False], [True, True, True]])
    zeros = torch.zeros(2, 3)
    statistics = TokenStatistics(zeros, zeros, zeros, zeros.long(), zeros, zeros, zeros, vocab_size=9)
    queue = {
        "rm_scores": nested(rows),
        "responses": nested([[4, 5], [6, 7, 8]]),
        "response_mask": nested([[1, 1], [1, 1, 1]]),
    }

    def get(batch, names):
        asked.extend(names)
        return TensorDict(queue, 2)

    monkeypatch.setattr(queue_io, "get", get)
    monkeypatch.setattr(queue_io, "queued_statistics", lambda data, vocab_size: statistics)
    monkeypatch.setattr(queue_io, "token_pieces", lambda ids, tokenizer: [[str(i) for i in row] for row in ids])
    batch = KVBatchMeta(keys=["000001-000000_0_0", "000001-000001_0_0"], tags=[{}] * 2, partition_id="train")
    found = queue_io.read_rollouts(batch, MethodStack([METHODS[name]()]), None, 9, 1, CONFIG)
    assert torch.equal(found.response_mask, inside)
    assert found.cut.tolist() == [False, True]
    assert ("rm_scores" in asked) == reads
    assert found.rewards.tolist() == [0.5, 1.0] if reads else found.rewards is None
    assert found.token_texts == ([["4", "5"], ["6", "7", "8"]] if reads else None)


def test_texts_are_whole_where_tools_wrote(monkeypatch):
    """The mask leaves out tokens 5 and 6, which a tool wrote within the first response."""
    responses = torch.nested.as_nested_tensor([torch.tensor([4, 5, 6, 7]), torch.tensor([8, 3])], layout=torch.jagged)
    mask = torch.nested.as_nested_tensor([torch.tensor([1, 0, 0, 1]), torch.tensor([1, 1])], layout=torch.jagged)
    zeros = torch.zeros(2, 4)
    statistics = TokenStatistics(zeros, zeros, zeros, zeros.long(), zeros, zeros, zeros, vocab_size=9)
    monkeypatch.setattr(queue_io, "get", lambda batch, names: {"responses": responses, "response_mask": mask})
    monkeypatch.setattr(queue_io, "queued_statistics", lambda data, vocab_size: statistics)
    monkeypatch.setattr(queue_io, "token_pieces", lambda ids, tokenizer: [[str(i) for i in row] for row in ids])
    batch = KVBatchMeta(keys=["000001-000000_0_0", "000001-000001_0_0"], tags=[{}] * 2, partition_id="train")
    found = queue_io.read_rollouts(batch, MethodStack([ReadsTexts()]), None, 9, 1, CONFIG)
    assert found.token_texts == [["4", "5", "6", "7"], ["8", "3"]]
    assert found.response_mask.tolist() == [[True, False, False, True], [True, True, False, False]]


@dataclass(frozen=True)
class ReadsTexts(Method):
    needs = frozenset({"token_texts"})

    def clip(self, clip):
        return clip


def test_places_and_classes_do_not_depend_on_the_order_of_the_batch(monkeypatch):
    """The graders compare with the first answer of a class, so they get the responses in the order of their numbers."""
    answers = {"000001-000000_0_0": "3", "000001-000000_1_0": "2", "000001-000000_2_0": "3", "000001-000000_10_0": ""}
    answers |= {"000001-000001_0_0": "3", "000001-000001_1_0": "5"}
    seen = []

    class Pool(GraderPool):
        def groups(self, problems):
            seen.append(list(problems))
            return [[0, 1, 0, None], [0, 1]]

    zeros = torch.zeros(6, 1)
    statistics = TokenStatistics(zeros, zeros, zeros, zeros.long(), zeros, zeros, zeros, vocab_size=9)
    monkeypatch.setattr(queue_io, "queued_statistics", lambda data, vocab_size: statistics)
    monkeypatch.setattr(queue_io, "_graders", lambda scorers: Pool(workers=1))
    one = torch.nested.as_nested_tensor([torch.ones(1, dtype=torch.long)] * 6, layout=torch.jagged)

    def get(batch, names):
        extra = [{"reward_extra_info": {"pred": answers[key]}} for key in batch.keys]
        return {"responses": one, "response_mask": one, "extra_fields": extra, "data_source": ["math"] * 6}

    monkeypatch.setattr(queue_io, "get", get)
    stack = MethodStack([METHODS["ttrl"]()])
    for order in (range(6), (3, 4, 2, 0, 5, 1)):
        keys = [list(answers)[row] for row in order]
        batch = KVBatchMeta(keys=keys, tags=[{}] * 6, partition_id="train")
        found = queue_io.read_rollouts(batch, stack, None, 9, 1, CONFIG)
        assert found.place.tolist() == [[0, 1, 2, 10, 0, 1][row] for row in order]
        groups = {tuple(keys[row] for row in group) for group in found.groups()}
        assert groups == {tuple(list(answers)[:4]), tuple(list(answers)[4:])}
        expected = [[0, 1, 0, None, 0, 1][row] for row in order]
        classes = found.answer_ids.tolist()
        assert all(one == other if other is not None else one < 0 for one, other in zip(classes, expected, strict=True))
    assert seen[0] == seen[1] == [("math", ["3", "2", "3", None]), ("math", ["3", "5"])]
