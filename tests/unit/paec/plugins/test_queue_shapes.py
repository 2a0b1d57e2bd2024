"""What TransferQueue's own functions write down of a batch, and its parts, ours do too."""

from __future__ import annotations

import numpy
import pytest
import torch
from jagged_rows import jagged
from tensordict import NonTensorStack, TensorDict
from transfer_queue import metadata
from transfer_queue.storage.managers import simple_storage_manager as manager

from recipe.paec.plugins import queue_shapes


@pytest.mark.parametrize(
    "fields",
    [
        {"number": torch.arange(4), "ids": jagged(torch.int64), "text": NonTensorStack("a", "b", "c", "d")},
        {"wide": jagged(torch.bfloat16, (5,)), "ids": jagged(torch.int64, lengths=[0, 1, 2, 3])},
        {"number": torch.ones(4, 2)},
    ],
)
def test_the_schema_is_the_same(monkeypatch, fields):
    data = TensorDict(fields, batch_size=4)
    expected = metadata.extract_field_schema(data)
    for module in (metadata, manager):
        monkeypatch.setattr(module, "extract_field_schema", module.extract_field_schema)
    queue_shapes.shapes_from_offsets()
    for module in (metadata, manager):
        assert module.extract_field_schema(data) == expected
        assert [*module.extract_field_schema(data)] == [*fields]


def test_the_schema_of_no_response(monkeypatch):
    for module in (metadata, manager):
        monkeypatch.setattr(module, "extract_field_schema", module.extract_field_schema)
    queue_shapes.shapes_from_offsets()
    assert metadata.extract_field_schema(TensorDict({}, batch_size=0)) == {}


def batch_meta() -> metadata.BatchMeta:
    data = TensorDict({"ids": jagged(torch.int64), "number": torch.arange(4), "wide": jagged(wide=(5,))}, batch_size=4)
    return metadata.BatchMeta(
        global_indexes=[5, 6, 7, 8],
        partition_ids=["train"] * 4,
        field_schema=metadata.extract_field_schema(data),
        production_status=numpy.array([1, 1, 0, 1]),
        extra_info={"step": 3},
        custom_meta=[{"uid": "a"}, {}, {"uid": "c"}, {}],
    )


PARTS = ("global_indexes", "partition_ids", "field_schema", "extra_info", "custom_meta", "_custom_backend_meta", "size")


@pytest.mark.parametrize(
    ("method", "chosen"),
    [
        ("select_samples", [2, 0]),
        ("select_samples", []),
        ("select_fields", ["wide", "number"]),
        ("select_fields", ["ids", "missing"]),
        ("chunk", 2),
        ("chunk", 3),
    ],
)
def test_parts_of_a_batch_are_the_same(monkeypatch, method, chosen):
    expected = getattr(batch_meta(), method)(chosen)
    for name in ("select_samples", "select_fields"):
        monkeypatch.setattr(metadata.BatchMeta, name, getattr(metadata.BatchMeta, name))
    queue_shapes.shapes_not_copied()
    whole = batch_meta()
    found = getattr(whole, method)(chosen)
    for part, its in zip(*([x] if method != "chunk" else x for x in (found, expected)), strict=True):
        for name in PARTS:
            assert getattr(part, name) == getattr(its, name), name
        assert part.production_status.tolist() == its.production_status.tolist()
        assert part.field_names == its.field_names and part.is_ready == its.is_ready
        for field in part.field_schema.values():
            if field.get("per_sample_shapes"):
                field["per_sample_shapes"].clear()  # its own
        for field in part.custom_meta:
            field["uid"] = "changed"
    assert whole.field_schema == batch_meta().field_schema and whole.custom_meta == batch_meta().custom_meta
