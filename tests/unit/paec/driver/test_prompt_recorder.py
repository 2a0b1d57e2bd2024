"""What a step's responses say about its prompts."""

from __future__ import annotations

import pytest
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from recipe.paec.driver import queue_io
from recipe.paec.driver.prompt_recorder import PromptRecorder
from recipe.paec.run import prompt_record


@pytest.fixture
def queue(monkeypatch):
    """Rows of a queue by key; what was fetched of them is checked."""
    rows: dict[str, dict] = {}

    def get(keys, partition_id, select_fields):
        assert partition_id == "train" and select_fields == ["data_source", "index", "extra_fields"]
        columns = {name: NonTensorStack(*(rows[key][name] for key in keys)) for name in select_fields}
        return TensorDict(columns, batch_size=len(keys))

    monkeypatch.setattr(queue_io.tq, "kv_batch_get", get)
    return rows


def batch(queue, responses, padding=()) -> KVBatchMeta:
    """`responses`: key -> (index, acc)."""
    for key, (index, acc) in responses.items():
        info = {"acc": acc, "score": acc / 2}
        queue[key] = {"data_source": "gsm8k", "index": index, "extra_fields": {"reward_extra_info": info}}
    tags = [{"is_padding": True} if key in padding else {} for key in responses]
    return KVBatchMeta(keys=[*responses], tags=tags, partition_id="train")


def test_right_responses_are_counted_by_row(queue, tmp_path):
    """Right is the verdict, not the score; two prompts of one row add up, padding and later outputs do not count."""
    recorder = PromptRecorder(tmp_path)
    responses = {"p_0_0": (7, 1.0), "p_1_0": (7, 0.0), "p_1_1": (7, 0.0), "q_0_0": (9, 0.0), "r_0_0": (7, 1.0)}
    infos = recorder.take(batch(queue, responses | {"pad_0_0": (7, 1.0)}, padding=["pad_0_0"]))
    assert [info["acc"] for info in infos] == [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert recorder.sources == ["gsm8k"] * 6
    recorder.write(3, 1)
    assert prompt_record.read(tmp_path) == ({("gsm8k", 7): {1: (2, 3)}, ("gsm8k", 9): {1: (0, 1)}}, [3])


def test_a_step_of_several_passes_is_one_line(queue, tmp_path):
    recorder = PromptRecorder(tmp_path)
    recorder.take(batch(queue, {"p_0_0": (1, 1.0)}))
    recorder.take(batch(queue, {"q_0_0": (2, 1.0)}))
    recorder.write(1, 0)
    recorder.take(batch(queue, {"p_0_0": (1, 0.0)}))
    recorder.write(2, 0)
    counts, steps = prompt_record.read(tmp_path)
    assert steps == [1, 2] and counts == {("gsm8k", 1): {0: (1, 2)}, ("gsm8k", 2): {0: (1, 1)}}
