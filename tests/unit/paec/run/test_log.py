"""The metrics file survives kills."""

from __future__ import annotations

import json

from recipe.paec.common.files import replace_file
from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.paec.run.log import MetricsFile, Tail, truncate_metrics


def test_metrics_file(tmp_path):
    written: list[int] = []
    file = MetricsFile(tmp_path, written.append)
    file.log({"a": 1.5, "b": float("nan")}, step=1)
    file.log({"a": 2.5}, step=2)
    file.log({"a": 3.5}, step=3)
    file.finish()
    assert written == [{"step": 1, "a": 1.5, "b": None}, {"step": 2, "a": 2.5}, {"step": 3, "a": 3.5}]
    path = tmp_path / METRICS_FILE
    with open(path, "a") as stream:
        stream.write('{"step": 4, "a"')
    assert read_metrics(path) == [
        {"step": 1, "a": 1.5, "b": None},
        {"step": 2, "a": 2.5},
        {"step": 3, "a": 3.5},
    ]
    truncate_metrics(path, 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_growing_file_is_read_from_where_the_last_reading_ended(tmp_path):
    path = tmp_path / METRICS_FILE
    tail = Tail(path)
    assert tail.read() == ([], True), "there is none yet"
    path.write_bytes(b'{"step": 1}\n{"step"')
    assert tail.read() == (['{"step": 1}'], True) and tail.offset == 12
    assert tail.read() == ([], False), "a line that is cut off waits"
    with open(path, "ab") as stream:
        stream.write(b': 2}\n{"step": 3}\n')
    assert tail.read() == (['{"step": 2}', '{"step": 3}'], False)
    assert tail.offset == path.stat().st_size


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    """A run that is resumed drops the steps after its checkpoint, and may have written as many again."""
    path = tmp_path / METRICS_FILE
    path.write_text("one\ntwo\n")
    tail = Tail(path)
    tail.read()
    replace_file(path, "one\n2 ?\nthree\n")
    assert tail.read() == (["one", "2 ?", "three"], True)
    path.write_text("1\n")  # in place, and shorter
    assert tail.read() == (["1"], True)
    path.unlink()
    assert tail.read() == ([], True)
