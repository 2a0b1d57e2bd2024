"""New steps of a run as data for its page; whatever rows alone cannot tell makes the page load itself again."""

from __future__ import annotations

import json
import re

import pytest
from report_runs import record, write_run

from recipe.paec.common.files import replace_file
from recipe.paec.common.records import METRICS_FILE
from recipe.paec.report.page import rounded
from recipe.paec.watch import live_run
from recipe.paec.watch.live_run import LiveRun


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "first", last=5)


def append(folder, *records: dict) -> None:
    with open(folder / METRICS_FILE, "a") as stream:
        stream.writelines(json.dumps(one) + "\n" for one in records)


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_new_steps_are_rows(folder):
    run = LiveRun(folder)
    data = data_of(run.page())
    assert data["live"]["seconds"] == live_run.SECONDS
    assert data["groups"][0]["axes"][data["groups"][0]["columns"]["actor/entropy"][0]] == [1, 2, 3, 4, 5]
    first = run.update(data["live"]["state"])
    assert first["rows"] == [] and first["state"] == data["live"]["state"]
    append(folder, record(6), record(7))
    answer = run.update(first["state"])
    assert [row["step"] for row in answer["rows"]] == [6, 7]
    for key, value in record(6).items():
        assert answer["rows"][0][key] == rounded(value)
    assert answer["rows"][0]["report/time/gen"] == 0.5
    assert answer["status"] == {"kind": "stopped", "sentence": "stopped at step 7 of 8"}
    assert {"label": "steps", "value": "7 of 8", "detail": ""} in answer["facts"]
    assert run.update(answer["state"])["rows"] == []
    assert run.update(first["state"])["rows"] == answer["rows"], "another page may ask later"


def test_a_line_that_is_cut_off_waits(folder):
    run = LiveRun(folder)
    state = data_of(run.page())["live"]["state"]
    line = json.dumps(record(6))
    with open(folder / METRICS_FILE, "a") as stream:
        stream.write(line[:50])
    assert run.update(state)["rows"] == []
    with open(folder / METRICS_FILE, "a") as stream:
        stream.write(line[50:] + "\n")
    assert [row["step"] for row in run.update(state)["rows"]] == [6]


def test_only_new_bytes_are_read(folder, monkeypatch):
    run = LiveRun(folder)
    state = data_of(run.page())["live"]["state"]
    parsed = []
    monkeypatch.setattr(live_run, "record_of", lambda line: parsed.append(line) or json.loads(line))
    append(folder, record(6))
    run.update(state)
    append(folder, record(7))
    run.update(state)
    assert parsed == [json.dumps(record(6)), json.dumps(record(7))]


@pytest.mark.parametrize("more", [{"new/metric": 1.0}, {"actor/aepo/alpha": 0.5}])
def test_a_new_metric_reloads(folder, more):
    run = LiveRun(folder)
    state = data_of(run.page())["live"]["state"]
    append(folder, record(6, **more))
    assert run.update(state) == {"reload": True}
    append(folder, record(7, **more))
    assert [row["step"] for row in run.update(data_of(run.page())["live"]["state"])["rows"]] == []


def test_a_resumed_run_reloads(folder):
    """It drops the steps after its checkpoint, and may have written them again before the page asks."""
    run = LiveRun(folder)
    state = data_of(run.page())["live"]["state"]
    replace_file(folder / METRICS_FILE, "".join(json.dumps(record(s, seed=1)) + "\n" for s in range(6)))
    assert run.update(state) == {"reload": True}
    data = data_of(run.page())
    axis, values = data["groups"][0]["columns"]["actor/entropy"]
    assert values[0] == rounded(record(1, seed=1)["actor/entropy"])
    append(folder, record(3))  # a step again, without dropping it first
    assert run.update(data["live"]["state"]) == {"reload": True}
    data = data_of(run.page())
    axis, values = data["groups"][0]["columns"]["actor/entropy"]
    assert data["groups"][0]["axes"][axis] == [1, 2, 3, 4, 5] and values[2] == rounded(record(3)["actor/entropy"])


@pytest.mark.parametrize("state", ["", "x", "a.b.c", "a.3.c", "..", "0" * 5000])
def test_a_page_of_another_server_reloads(folder, state):
    assert LiveRun(folder).update(state) == {"reload": True}


def test_charts_with_values_of_their_own_come_as_a_whole(folder):
    run = LiveRun(folder)
    state = data_of(run.page())["live"]["state"]
    append(folder, record(6), record(7), record(8))
    charts = {chart["id"]: chart for chart in run.update(state)["charts"]}
    assert set(charts) == {"passk-0", "deciles", "plane"}
    assert charts["plane"]["series"][0]["steps"] == [0, 4, 8]
    assert [line["label"] for line in charts["passk-0"]["series"]] == ["step 0", "step 4", "step 8"]
    assert charts["passk-0"]["series"][2]["ys"] == [0.5, 0.65, 0.7]


def test_a_run_without_a_step(tmp_path):
    (tmp_path / ".paec_folder.json").write_text('{"kind": "run"}')
    run = LiveRun(tmp_path)
    state = data_of(run.page())["live"]["state"]
    assert run.update(state)["status"]["kind"] == "empty"
    append(tmp_path, record(0), record(1))
    assert run.update(state) == {"reload": True}
    assert "step 1" in run.page()
