"""The metrics file survives kills."""

from __future__ import annotations

import json

from recipe.paec.run.log import METRICS_FILE, MetricsFile, read_metrics, truncate_metrics


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
