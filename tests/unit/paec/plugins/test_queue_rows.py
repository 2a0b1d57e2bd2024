"""A field's rows in one frame arrive as TransferQueue's own frames bring them, and storage keeps them one by one."""

from __future__ import annotations

import pickle

import pytest
import torch
from jagged_rows import jagged
from tensordict import NonTensorStack
from transfer_queue.storage import simple_storage
from transfer_queue.storage.managers import simple_storage_manager as manager
from transfer_queue.utils import serial_utils

from recipe.paec.plugins import queue_rows


@pytest.fixture
def select(monkeypatch):
    """TransferQueue's choice of what goes to a storage unit, and ours."""
    verls = manager.AsyncSimpleStorageManager._select_by_positions
    monkeypatch.setattr(manager.AsyncSimpleStorageManager, "_select_by_positions", staticmethod(verls))
    queue_rows.rows_in_one_frame()
    return verls, manager.AsyncSimpleStorageManager._select_by_positions


@pytest.fixture
def unit(monkeypatch):
    """A storage unit's memory, which has not received rows in one frame yet."""
    original = simple_storage.StorageUnitData.get_data
    monkeypatch.setattr(simple_storage.StorageUnitData, "get_data", original)
    queue_rows.answers_in_one_frame.cache_clear()
    yield simple_storage.StorageUnitData()
    queue_rows.answers_in_one_frame.cache_clear()


def sent(message: dict) -> tuple[dict, int]:
    """A message as it arrives, and the number of its frames."""
    frames = [bytes(memoryview(frame)) for frame in serial_utils.encode(message)]
    return serial_utils.decode(frames), len(frames)


@pytest.mark.parametrize("places", [[0, 1, 2, 3], [3, 0], [1], [2, 1, 0]])
@pytest.mark.parametrize("wide", [(), (5,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_put_brings_the_same_rows(select, unit, dtype, wide, places):
    verls, ours = select
    field = jagged(dtype, wide)
    expected, frames = sent({"data": verls(field, places)})
    found, fewer = sent({"data": ours(field, places)})
    assert (frames, fewer) == (1 + len(places), 2)
    assert type(found["data"]) is list and len(found["data"]) == len(places)
    for row, own in zip(expected["data"], found["data"], strict=True):
        assert torch.equal(row, own) and row.dtype == own.dtype and row.shape == own.shape
        assert own.untyped_storage().nbytes() == own.nbytes  # freed and saved by itself


def test_a_row_that_starts_within_the_values(select, unit):
    """TransferQueue cannot send such a field."""
    values, offsets = torch.arange(6), torch.tensor([2, 3, 6])
    found, _ = sent({"data": select[1](torch.nested.nested_tensor_from_jagged(values, offsets), [0, 1])})
    assert [row.tolist() for row in found["data"]] == [[2], [3, 4, 5]]


@pytest.mark.parametrize(
    "field",
    [torch.arange(4), torch.arange(8).reshape(4, 2), NonTensorStack("a", "b", "c", "d"), ["a", "b", "c", "d"]],
)
def test_other_fields_travel_as_they_did(select, field):
    verls, ours = select
    expected, found = verls(field, [2, 0]), ours(field, [2, 0])
    assert type(found) is type(expected)
    assert [str(one) for one in found] == [str(one) for one in expected]


def test_long_rows_travel_as_they_did(select, monkeypatch):
    monkeypatch.setattr(queue_rows, "LARGEST_ROW", 8)  # bytes; the rows have 9, 9 and 10 of them
    assert isinstance(select[1](jagged(torch.bool, lengths=[9, 9, 10]), [0, 1, 2]), list)
    assert isinstance(select[1](jagged(torch.bool, lengths=[9, 9, 6]), [0, 1, 2]), queue_rows.Rows)
    nine, six = torch.zeros(9, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)
    assert queue_rows.to_fetch([nine, nine]) is None
    assert queue_rows.to_fetch([nine, six]) is not None


def test_a_unit_answers_as_it_was_asked(select, unit):
    """From its first rows in one frame on; what it keeps, and what a field is to its reader, stays the same."""
    indexes = [7, 8, 9, 10]
    fields = {
        "ids": jagged(torch.int64),
        "wide": jagged(wide=(5,)),
        "number": torch.tensor([4, 3, 2, 1]),
        "text": ["a", "b", "c", "d"],
    }
    plain = {name: select[0](field, [0, 1, 2, 3]) for name, field in fields.items()}
    unit.put_data(sent({"data": plain})[0]["data"], indexes)
    expected, frames = sent({"data": unit.get_data([*fields], [9, 7])})
    assert frames == 7

    ours = {name: select[1](field, [0, 1, 2, 3]) for name, field in fields.items()}
    again = simple_storage.StorageUnitData()
    again.put_data(sent({"data": ours})[0]["data"], indexes)
    found, frames = sent({"data": again.get_data([*fields], [9, 7])})
    assert frames == 4
    for name in fields:
        assert type(found["data"][name]) is list
        for row, own in zip(expected["data"][name], found["data"][name], strict=True):
            assert own == row if name == "text" else torch.equal(own, row) and own.dtype == row.dtype
    assert len(pickle.dumps(again.field_data["wide"][8])) == len(pickle.dumps(unit.field_data["wide"][8]))
    again.clear([7, 9])
    assert sorted(again.field_data["ids"]) == [8, 10]


def test_a_unit_that_keeps_large_rows_on_disk_answers_as_it_did(select, unit, tmp_path):
    disk = simple_storage.HybridStorageUnitData(None, str(tmp_path), "run", "unit", threshold_bytes=8)
    ours = {"ids": select[1](jagged(torch.int64), [0, 1, 2, 3]), "number": torch.tensor([4, 3, 2, 1])}
    disk.put_data(sent({"data": ours})[0]["data"], [7, 8, 9, 10])
    assert disk.ssd_active_values > 0
    found = disk.get_data(["ids", "number"], [9, 8, 7])
    assert [row.tolist() for row in found["ids"]] == [[3, 4, 5, 6, 7], [], [0, 1, 2]]
    assert [one.tolist() for one in found["number"]] == [2, 3, 4]


def test_saved_and_loaded(select, unit, tmp_path):
    unit.put_data(sent({"data": {"wide": select[1](jagged(wide=(5,)), [3, 0])}})[0]["data"], [7, 8])
    unit.save_checkpoint(tmp_path / "unit.pkl", "unit")
    again = simple_storage.StorageUnitData()
    again.load_checkpoint(tmp_path / "unit.pkl")
    found = sent({"data": again.get_data(["wide"], [8])})[0]["data"]["wide"]
    assert [row.tolist() for row in found] == [jagged(wide=(5,))[0].tolist()]


def test_a_message_that_is_sent_again(select, unit):
    """As TransferQueue does if there is no answer."""
    message = {"data": select[1](jagged(), [2, 0])}
    for _ in range(2):
        assert [row.tolist() for row in sent(message)[0]["data"]] == [[3, 4, 5, 6, 7], [0, 1, 2]]


def test_values_that_are_not_contiguous(select, unit):
    values = torch.arange(12.0).reshape(2, 6).T
    field = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 2, 6], dtype=torch.int32))
    for places in ([0, 1], [1]):
        expected, found = (sent({"data": choose(field, places)})[0]["data"] for choose in select)
        assert [row.tolist() for row in found] == [row.tolist() for row in expected]


def test_replaced_twice(select, unit):
    queue_rows.rows_in_one_frame()
    twice = manager.AsyncSimpleStorageManager._select_by_positions
    found, frames = sent({"data": twice(jagged(), [0, 2])})
    assert frames == 2 and [len(row) for row in found["data"]] == [3, 5]


def test_a_message_that_is_pickled_as_a_whole(select, unit):
    """As TransferQueue does where a message has a number that its own format has not."""
    found, frames = sent({"data": select[1](jagged(), [0, 2]), "large": 2**70})
    assert (frames, found["large"]) == (2, 2**70)
    assert [row.tolist() for row in found["data"]] == [[0, 1, 2], [3, 4, 5, 6, 7]]
    assert [row.untyped_storage().nbytes() for row in found["data"]] == [12, 20]


@pytest.mark.parametrize(
    "values",
    [
        [torch.zeros(2), torch.zeros(2, dtype=torch.float64)],
        [torch.zeros(2, 3), torch.zeros(2, 4)],
        [torch.zeros(2), torch.zeros(())],
        [torch.zeros(2), None],
        [torch.zeros(2), torch.zeros(2).to_sparse()],
        [torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])] * 2,
        ["a", "b"],
        [],
        torch.zeros(2),
    ],
)
def test_what_cannot_be_joined_is_answered_as_it_was(values):
    assert queue_rows.to_fetch(values) is None


def test_numbers_are_answered_as_numbers(unit):
    found, frames = sent({"data": queue_rows.to_fetch([torch.tensor(4), torch.tensor(3)])})
    assert frames == 2 and [one.tolist() for one in found["data"]] == [4, 3]
    assert [one.dim() for one in found["data"]] == [0, 0]
