"""Which responses of a validation wait, their log-prob pass, and the record; the queue is a dictionary."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from letters import Letters
from omegaconf import OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from recipe.paec.actor.batches import NUCLEUS, NUCLEUS_FIELDS, RECORDED, VERL_NAMES
from recipe.paec.common.errors import UserError
from recipe.paec.driver import token_recorder, validation_recorder
from recipe.paec.driver.validation_recorder import FIELDS, PARTITION, ValidationRecorder, prompt_name
from recipe.paec.run import token_record

STATISTICS = [*VERL_NAMES, *NUCLEUS_FIELDS]


class Queue:
    """Partition -> key -> fields, and every fetch."""

    def __init__(self):
        self.partitions: dict[str, dict[str, dict[str, torch.Tensor]]] = {"val": {}}
        self.fetched: list[tuple[str, list[str], list[str]]] = []

    def put(self, keys, partition_id, fields, tags=None):
        assert len(keys) == len(fields)
        rows = {name: fields[name].unbind() for name in fields.keys()}
        for i, key in enumerate(keys):
            stored = self.partitions.setdefault(partition_id, {}).setdefault(key, {})
            stored.update({name: values[i].clone() for name, values in rows.items()})

    def get(self, keys, partition_id, select_fields):
        self.fetched.append((partition_id, list(keys), sorted(select_fields)))
        stored = self.partitions[partition_id]
        nested = {
            name: torch.nested.as_nested_tensor([stored[key][name] for key in keys], layout=torch.jagged)
            for name in select_fields
        }
        return TensorDict(nested, batch_size=len(keys))

    def clear(self, keys, partition_id):
        for key in keys:
            del self.partitions[partition_id][key]


@pytest.fixture
def queue(monkeypatch):
    made = Queue()
    for name, method in (("kv_batch_put", made.put), ("kv_batch_get", made.get), ("kv_clear", made.clear)):
        monkeypatch.setattr(validation_recorder.tq, name, method)
    assert token_recorder.tq is validation_recorder.tq
    return made


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as made:
        yield made


def recorder(folder, prompts: int = 2, samples: int = 2, micro_batch: int | None = None) -> ValidationRecorder:
    rollout = {"temperature": 0.7, "n": samples, "val_kwargs": {"temperature": 0.0}}
    rollout |= {"log_prob_use_dynamic_bsz": micro_batch is None, "log_prob_micro_batch_size_per_gpu": micro_batch}
    config = {"run": {"record_tokens": prompts, "directory": str(folder)}, "seed": 3}
    return ValidationRecorder(OmegaConf.create({**config, "actor_rollout_ref": {"rollout": rollout}}), top_p=0.8)


def validate(made: ValidationRecorder, queue: Queue, *batches: list[tuple[str, str, int]], samples: int = 3) -> None:
    """What verl does with the loader's batches, each a list of (uid, data source, index).

    The responses of sample s to index i have i + s + 1 tokens, the first of them i, and the score s.
    """
    made.begin()
    loader = [{"data_source": [p[1] for p in batch], "index": [p[2] for p in batch]} for batch in batches]
    watched = made.watched(loader)
    assert len(watched) == len(batches)
    for prompts, batch in zip(watched, batches, strict=True):
        prompts["uid"] = [uid for uid, *_ in batch]
        keys = []
        for uid, _, index in sorted(batch):
            for sample in range(samples):
                length = index + sample + 1
                keys.append(f"{uid}_{sample}_0")
                queue.partitions["val"][keys[-1]] = {
                    "prompts": torch.arange(2),
                    "responses": torch.arange(length) + index,
                    "response_mask": torch.ones(length, dtype=torch.int64),
                    "rm_scores": torch.nn.functional.one_hot(torch.tensor(length - 1), length).float() * sample,
                }
        made.collect(KVBatchMeta(partition_id="val", keys=keys, tags=[{} for _ in keys]))
        queue.clear(keys, "val")


def forward(queue: Queue, batch: KVBatchMeta) -> None:
    """A log-prob pass: the statistics of the token after place p are p, p + 10, ... in the order of the names."""
    for key in batch.keys:
        row = queue.partitions[PARTITION][key]
        places = torch.arange(len(row["input_ids"])).float()
        columns = [places + 10 * number for number in range(len(STATISTICS))]
        row |= dict(zip(VERL_NAMES.values(), columns, strict=False))
        row[NUCLEUS] = torch.stack(columns[len(VERL_NAMES) :], -1)


TWO = [("uuid-z", "countdown", 4), ("uuid-b", "countdown", 0), ("uuid-a", "gsm8k", 4)]


def test_a_validation_is_recorded(queue, executor, tmp_path):
    made = recorder(tmp_path)
    validate(made, queue, TWO)
    chosen = ["uuid-z_0_0", "uuid-z_1_0", "uuid-b_0_0", "uuid-b_1_0"]
    assert queue.fetched == [("val", chosen, sorted(FIELDS))], "the first two of the file, two responses each"
    made.keep(executor, 20)[0].result()
    assert token_record.steps(tmp_path, validation=True) == [] and token_record.waiting_path(tmp_path, 20).is_file()
    batch = made.put(ranks=1)
    assert batch.partition_id == PARTITION and len(batch) == 4
    assert batch.extra_info == {
        **{"temperature": 0.7, "calculate_entropy": True, "compute_loss": False},
        **{RECORDED: True, "trainer_step": 20},
    }
    forward(queue, batch)
    seconds, (write,) = made.take(batch, 26, Letters(), executor)
    assert write.result() == tmp_path / "tokens" / "validation" / "20.parquet"
    assert seconds > 0 and not made.waits and queue.partitions[PARTITION] == {}
    assert [file.name for file in write.result().parent.iterdir()] == ["20.parquet"]
    assert token_record.steps(tmp_path) == [], "not a step of the training"
    found = token_record.read(write.result())
    about = (found.step, found.validation, found.vocab_size, found.top_p, found.temperature, found.seed)
    assert about == (20, True, 26, 0.8, 0.7, 3)
    names = [f"validation-countdown-{index}_{sample}_0" for index in (4, 0) for sample in (0, 1)]
    assert [one.uid for one in found.responses] == names
    assert [one.score for one in found.responses] == [0, 1, 0, 1]
    last = found.responses[1]
    assert last.group == prompt_name("countdown", 4) and last.advantages is None
    assert last.input == "ab" and last.prompt_ids.tolist() == [0, 1] and last.ids.tolist() == [4, 5, 6, 7, 8, 9]
    assert last.texts == ("e", "f", "g", "h", "i", "j") and last.response_mask.all()
    assert last.statistics["log_prob"].tolist() == [1, 2, 3, 4, 5, 6], "the row before a token predicts it"
    assert last.statistics["entropy"].tolist() == [11, 12, 13, 14, 15, 16]
    assert last.nucleus_size.tolist() == [10 * STATISTICS.index("nucleus_size") + i for i in range(1, 7)]


def test_what_the_pass_is_given(queue, executor, tmp_path):
    """Sequences as the rollout leaves them; the shortest response fills the batch up, and is not recorded."""
    made = recorder(tmp_path, prompts=1, samples=3, micro_batch=2)
    validate(made, queue, TWO)
    made.keep(executor, 1)
    batch = made.put(ranks=2)
    names = [f"validation-countdown-4_{sample}_0" for sample in range(3)]
    assert batch.keys == [*names, "filling_0_0"], "a multiple of 2 ranks x 2 sequences"
    row, filling = (queue.partitions[PARTITION][key] for key in (names[1], "filling_0_0"))
    assert row["input_ids"].tolist() == [0, 1, 4, 5, 6, 7, 8, 9] and row["position_ids"].tolist() == [*range(8)]
    assert row["loss_mask"].tolist() == row["response_mask"].tolist() == [1] * 6
    assert filling["input_ids"].tolist() == [0, 1, 4, 5, 6, 7, 8] and "rm_scores" not in row
    forward(queue, batch)
    _, (write,) = made.take(batch, 26, Letters(), executor)
    assert [one.uid for one in token_record.read(write.result()).responses] == names
    assert queue.partitions[PARTITION] == {}


def test_prompts_come_from_several_batches_and_only_once(queue, executor, tmp_path):
    """A benchmark may repeat its rows; a repeated prompt does not use up a place."""
    made = recorder(tmp_path, prompts=3, samples=1)
    first = [("a", "aime", 1), ("b", "aime", 1)]
    validate(made, queue, first, [("c", "aime", 1), ("d", "aime", 2)], [("e", "aime", 3)], [("f", "aime", 4)])
    assert [keys for _, keys, _ in queue.fetched] == [["a_0_0"], ["d_0_0"], ["e_0_0"]]
    assert made.waits


def test_every_validation_has_the_same_names(queue, executor, tmp_path):
    """verl's names are random, and order the batch at random."""
    made, uids = recorder(tmp_path, samples=1), []
    for step, names in ((0, "xyz"), (10, "zyx")):
        validate(made, queue, [(name, *place) for name, (_, *place) in zip(names, TWO, strict=True)])
        made.keep(executor, step)
        batch = made.put(1)
        forward(queue, batch)
        record = token_record.read(made.take(batch, 26, Letters(), executor)[1][0].result())
        uids.append({one.uid: one.ids.tolist() for one in record.responses})
    assert uids[0] == uids[1] and len(uids[0]) == 2


def test_a_resumed_run_computes_what_waited(queue, executor, tmp_path):
    before = recorder(tmp_path)
    validate(before, queue, TWO)
    before.keep(executor, 20)[0].result()
    made = recorder(tmp_path)
    made.resume(10)
    assert not made.waits, "only the checkpoint of the same step has the same policy"
    token_record.cut(tmp_path, 20)
    made.resume(20)
    batch = made.put(1)
    assert batch.extra_info["trainer_step"] == 20
    forward(queue, batch)
    found = token_record.read(made.take(batch, 26, Letters(), executor)[1][0].result())
    assert (found.step, len(found.responses)) == (20, 4)
    assert [one.score for one in found.responses] == [0, 1, 0, 1]
    assert not token_record.waiting_path(tmp_path, 20).exists()


def test_a_file_that_cannot_be_read(tmp_path):
    file = token_record.waiting_path(tmp_path, 20)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half")
    recorder(tmp_path, prompts=0).resume(20)
    with pytest.raises(UserError, match="20.waiting.pt: cannot be read .*: delete it; that validation will have no"):
        recorder(tmp_path).resume(20)


def test_nothing_is_fetched_or_written_without_prompts(queue, executor, tmp_path):
    made = recorder(tmp_path, prompts=0)
    validate(made, queue, TWO)
    assert not made.waits and made.keep(executor, 20) == []
    assert queue.fetched == [] and list(tmp_path.iterdir()) == []
