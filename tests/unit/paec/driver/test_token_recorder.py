"""What of a step's responses is recorded, and that nothing else is fetched; the queue is a dictionary."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from letters import Letters
from omegaconf import OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from paec_loss import Rollouts, TokenStatistics
from recipe.paec.actor.batches import NUCLEUS, NUCLEUS_FIELDS, QUEUED_FIELDS, RECORDED
from recipe.paec.driver import token_recorder
from recipe.paec.driver.token_recorder import OUTCOME, SECONDS, TokenRecorder, chosen_keys
from recipe.paec.run import token_record

RESPONSES = {"000005-000000_0_0": 4, "000005-000000_1_0": 2, "000005-000001_0_0": 3, "000005-000001_1_0": 1}
PROMPT = 2


class Queue:
    """Responses by key, with made-up fields, and what was fetched of them; `missing` fields it does not have."""

    def __init__(self):
        self.missing: set[str] = set()
        self.fetched: list[tuple[list[str], list[str]]] = []

    def value(self, name, number, length):
        rows = {
            "prompts": torch.arange(PROMPT),
            "responses": torch.arange(length) + number,
            "response_mask": torch.ones(length, dtype=torch.int64),
            "rm_scores": torch.nn.functional.one_hot(torch.tensor(length - 1), length).float() * number,
            "advantages": torch.full((length,), number - 1.5),
            "old_log_probs": -torch.arange(length).float() - number,
            "entropy": torch.arange(length).float() + 0.25,
            "rollout_log_probs": -torch.arange(length).float() - number - 0.5,
            "loss_mask": torch.ones(length, dtype=torch.int64),
        }
        if length == 4:  # a tool wrote the third token, and a rollout correction has rejected the last one
            rows["loss_mask"][2] = rows["response_mask"][2] = rows["response_mask"][3] = 0
        # The row before a token predicts it: prompt and response, one earlier.
        size = torch.cat([torch.zeros(PROMPT - 1), torch.arange(length + 1.0) + 7])
        other = torch.cat([torch.full((PROMPT - 1,), 99.0), torch.arange(length + 1.0) / 8])
        rows[NUCLEUS] = torch.stack([size if field == "nucleus_size" else other for field in NUCLEUS_FIELDS], -1)
        return rows[name]

    def get(self, keys, partition_id, select_fields):
        self.fetched.append((keys, sorted(select_fields)))
        numbers = [[*RESPONSES].index(key) for key in keys]
        columns = {
            name: torch.nested.as_nested_tensor(
                [self.value(name, n, RESPONSES[key]) for n, key in zip(numbers, keys, strict=True)],
                layout=torch.jagged,
            )
            for name in select_fields
            if name not in self.missing
        }
        return TensorDict(columns, batch_size=len(keys))


@pytest.fixture
def queue(monkeypatch):
    made = Queue()
    monkeypatch.setattr(token_recorder.tq, "kv_batch_get", made.get)
    return made


def batch_of(*keys: str) -> KVBatchMeta:
    return KVBatchMeta(partition_id="train", keys=list(keys), tags=[{} for _ in keys])


def recorder(folder, prompts: int) -> TokenRecorder:
    config = {"run": {"record_tokens": prompts, "directory": str(folder)}, "seed": 1}
    config["actor_rollout_ref"] = {"rollout": {"temperature": 0.7}}
    return TokenRecorder(OmegaConf.create(config), top_p=0.8)


def test_the_first_prompts_are_chosen():
    """By name, whatever the order of the batch; samples in their order as numbers; padding does not count."""
    keys = ["000002-000001_10_0", "000002-000001_2_0", "000002-000000_0_0", "000002-000003_0_0"]
    tags = [{}, {"is_padding": False}, {"is_padding": True}, {}]
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=tags)
    assert chosen_keys(batch, 1) == ["000002-000001_2_0", "000002-000001_10_0"]
    assert chosen_keys(batch, 5) == ["000002-000001_2_0", "000002-000001_10_0", "000002-000003_0_0"]
    assert chosen_keys(batch, 0) == []


def test_a_step_is_recorded(queue, tmp_path):
    made, batch, metrics = recorder(tmp_path, 1), batch_of(*reversed(RESPONSES)), {}
    made.ask(batch)
    assert batch.extra_info[RECORDED] is True
    made.take_statistics(batch, vocab_size=26)
    assert RECORDED not in batch.extra_info, "the update must not be asked for them"
    made.take_outcome(batch, Letters())
    with ThreadPoolExecutor(1) as executor:
        (write,) = made.write(executor, 5, metrics)
        assert write.result() == tmp_path / "tokens" / "5.parquet"
    keys = ["000005-000000_0_0", "000005-000000_1_0"]
    assert queue.fetched == [(keys, sorted(QUEUED_FIELDS)), (keys, sorted(OUTCOME))], "of the other prompt nothing"
    assert metrics.keys() == {SECONDS} and metrics[SECONDS] > 0
    found = token_record.read(tmp_path / "tokens" / "5.parquet")
    assert (found.step, found.vocab_size, found.top_p, found.temperature, found.seed) == (5, 26, 0.8, 0.7, 1)
    first, second = found.responses
    assert [first.uid, second.uid] == keys and (first.score, second.score) == (0.0, 1.0)
    assert first.input == "ab" and first.prompt_ids.tolist() == [0, 1] and second.ids.tolist() == [1, 2]
    assert first.texts == ("a", "b", "c", "d") and second.texts == ("b", "c")
    assert second.advantages.tolist() == [-0.5, -0.5] and second.response_mask.tolist() == [True, True]
    assert second.statistics["log_prob"].tolist() == [-1.0, -2.0]
    assert second.statistics["entropy"].tolist() == [0.25, 1.25]
    assert first.nucleus_size.tolist() == [7, 8, 9, 10]
    assert first.statistics["nucleus_entropy"].tolist() == [0.0, 0.125, 0.25, 0.375]


@pytest.mark.parametrize("missing", [set(), {"rollout_log_probs"}])
def test_vllms_log_probs_are_recorded(queue, tmp_path, missing):
    """Of the tokens that it drew, also of those that a correction rejects; `calculate_log_probs=false` has none."""
    made, queue.missing = recorder(tmp_path, 1), missing
    made.take_statistics(batch_of(*RESPONSES), vocab_size=26)
    made.take_outcome(batch_of(*RESPONSES), Letters())
    with ThreadPoolExecutor(1) as executor:
        made.write(executor, 5, {})[0].result()
    first, second = token_record.read(tmp_path / "tokens" / "5.parquet").responses
    assert first.response_mask.tolist() == [True, True, False, False]
    if missing:
        assert first.rollout_log_prob is second.rollout_log_prob is None
    else:
        assert str(first.rollout_log_prob.tolist()) == "[-0.5, -1.5, nan, -3.5]"
        assert second.rollout_log_prob.tolist() == [-1.5, -2.5]


def test_what_a_method_has_had_fetched_is_used(queue, tmp_path):
    """In the order of the batch, which is another one than the record's; the statistics are not fetched again."""
    order = ["000005-000001_0_0", "000005-000000_1_0", "000005-000000_0_0", "000005-000001_1_0"]
    lengths = [RESPONSES[key] for key in order]
    values = torch.arange(16.0).reshape(4, 4)
    names = ("log_prob", "entropy", "nucleus_entropy", "nucleus_mass", "top1_log_prob", "top2_log_prob")
    statistics = TokenStatistics(**{name: values for name in names}, nucleus_size=values.long(), vocab_size=26)
    inside = torch.arange(4) < torch.tensor(lengths)[:, None]
    numbers = torch.zeros(4, dtype=torch.int64)
    rollouts = Rollouts(statistics, inside, numbers, step=5, seed=1, tokens=values.long())
    made = recorder(tmp_path, 1)
    made.take_statistics(batch_of(*order), 26, rollouts)
    made.take_outcome(batch_of(*order), Letters())
    with ThreadPoolExecutor(1) as executor:
        made.write(executor, 5, {})[0].result()
    first, second = token_record.read(tmp_path / "tokens" / "5.parquet").responses
    assert first.statistics["entropy"].tolist() == [8, 9, 10, 11] and second.nucleus_size.tolist() == [4, 5]
    assert second.texts == ("b", "c")
    assert queue.fetched == [(["000005-000000_0_0", "000005-000000_1_0"], sorted(OUTCOME))]


def test_mini_batches_of_a_step_are_recorded_together(queue, tmp_path):
    """separate_async: a log-prob pass for each mini-batch; the second has the prompt that is still missing."""
    made = recorder(tmp_path, 2)
    for keys in ([*RESPONSES][:2], [*RESPONSES][2:], ["000006-000000_0_0"]):
        made.take_statistics(batch_of(*keys), vocab_size=26)
        made.take_outcome(batch_of(*keys), Letters())
    assert len(queue.fetched) == 4, "nothing of the third"
    with ThreadPoolExecutor(1) as executor:
        made.write(executor, 5, {})[0].result()
    assert [r.uid for r in token_record.read(tmp_path / "tokens" / "5.parquet").responses] == [*RESPONSES]


def test_nothing_is_fetched_or_written_without_prompts(queue, tmp_path):
    made, batch, metrics = recorder(tmp_path, 0), batch_of(*RESPONSES), {}
    made.ask(batch)
    assert batch.extra_info[RECORDED] is False
    made.take_statistics(batch, vocab_size=26)
    made.take_outcome(batch, Letters())
    with ThreadPoolExecutor(1) as executor:
        assert made.write(executor, 5, metrics) == []
    assert queue.fetched == [] and metrics == {} and list(tmp_path.iterdir()) == []


def test_the_next_step_starts_empty(queue, tmp_path):
    made = recorder(tmp_path, 1)
    with ThreadPoolExecutor(1) as executor:
        for step in (5, 6):
            made.take_statistics(batch_of(*RESPONSES), vocab_size=26)
            made.take_outcome(batch_of(*RESPONSES), Letters())
            made.write(executor, step, {})[0].result()
    assert [len(token_record.read(tmp_path / "tokens" / f"{step}.parquet").responses) for step in (5, 6)] == [2, 2]
