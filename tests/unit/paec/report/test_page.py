"""The page as text: what it holds, and what cannot get out of it."""

import hashlib
import json
import re

import pytest
from pages import check_policy
from report_runs import record, write_run

from recipe.paec.report.command import content_of
from recipe.paec.report.page import UPLOT, embedded, render, rounded
from recipe.paec.report.runs import read_run

HOSTILE = "</script><img src=x onerror=alert(1)><!--<script>"


def page_of(*folders):
    return render(content_of([(None, read_run(folder)) for folder in folders]), "made now")


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_the_data_are_the_metrics(tmp_path):
    (group,) = data_of(page_of(write_run(tmp_path / "a")))["groups"]
    axis, values = group["columns"]["actor/entropy"]
    assert group["axes"][axis] == list(range(1, 9))
    assert values == [rounded(record(step)["actor/entropy"]) for step in range(1, 9)]
    assert set(group["columns"]) >= {key for step in range(9) for key in record(step) if key != "step"}


def test_gaps_are_null(tmp_path):
    folder = write_run(tmp_path / "a")
    lines = [json.dumps(record(1)), json.dumps(record(2) | {"actor/entropy": None}), json.dumps(record(4))]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (group,) = data_of(page_of(folder))["groups"]
    axis, values = group["columns"]["actor/entropy"]
    assert group["axes"][axis] == [1, 2, 4] and values == [0.484375, None, 0.4375]


def test_seeds_have_bounds(tmp_path):
    page = page_of(write_run(tmp_path / "m-seed0"), write_run(tmp_path / "m-seed1", seed=1))
    (group,) = data_of(page)["groups"]
    assert group["name"] == "m" and group["seeds"] == 2
    _, mean, low, high = group["columns"]["actor/entropy"]
    assert (mean[0], low[0], high[0]) == (0.489375, 0.484375, 0.494375)


def test_the_policy_allows_exactly_the_scripts_and_styles_of_the_page(tmp_path):
    page = page_of(write_run(tmp_path / "a"))
    check_policy(page)


def test_nothing_is_loaded(tmp_path):
    page = re.sub(r"<script.*?</script>", "", page_of(write_run(tmp_path / "a")), flags=re.S)
    assert not re.search(r"\s(src|action|data)=|<link|url\(|@import", page)
    assert set(re.findall(r'href="([^"]*)"', page)) <= {f"#{name}" for name in re.findall(r'id="([^"]*)"', page)}


def test_hostile_text_stays_text(tmp_path):
    folder = write_run(tmp_path / "a", output=HOSTILE, method=None)
    hostile = json.dumps({**record(1), f"actor/{HOSTILE}": 1.0, f"val/{HOSTILE}/avg@4": 0.5})
    (folder / "metrics.jsonl").write_text(hostile + "\n")
    config = (folder / "config.yaml").read_text().replace("name: a", f'name: "{HOSTILE}"')
    (folder / "config.yaml").write_text(config)
    (folder / "failure.json").write_text(json.dumps({"type": HOSTILE, "message": HOSTILE}))
    page = page_of(folder)
    assert HOSTILE not in page and "<img" not in page and page.count("</script>") == 3
    data = data_of(page)
    assert data["examples"][0]["responses"][0]["output"] == HOSTILE and data["title"] == HOSTILE


def test_embedded_json_cannot_end_its_element():
    text = "</script><!-- & \u2028"
    assert json.loads(embedded({"a": text})) == {"a": text}
    assert not set("<>&\u2028") & set(embedded({"a": text}))
    with pytest.raises(ValueError):
        embedded(float("nan"))


def test_a_secret_of_the_environment_is_hidden(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    page = page_of(write_run(tmp_path / "a", output="my token is hf_abcdefgh12345678"))
    assert "hf_abcdefgh12345678" not in page and "my token is [hidden]" in page


def test_an_empty_run_has_a_page(tmp_path):
    (tmp_path / ".paec_folder.json").write_text('{"kind": "run"}')
    page = page_of(tmp_path)
    assert "no step was recorded" in page and "The configuration was not recorded." in page
    assert "No rollouts were recorded." in page and data_of(page)["charts"] == []


def test_several_runs_have_a_table(tmp_path):
    page = page_of(write_run(tmp_path / "a"), write_run(tmp_path / "b", other=1, last=2))
    assert '<th scope="col">a</th><th scope="col">b</th>' in page
    assert "finished: 8 of 8 steps" in page and "stopped at step 2 of 8" in page


def test_what_could_not_be_read_is_said_of_its_run(tmp_path):
    folders = [write_run(tmp_path / name) for name in ("complete", "without", "full")]
    (folders[1] / "versions.json").unlink()
    page = page_of(*folders)
    (note,) = re.findall(r'<div class="remarks" role="note">(.*?)</div>', page, re.S)
    assert "<p>without: not everything could be read or is finite.</p>" in note
    assert re.findall("<li>(.*?)</li>", note) == ["versions.json is missing"]


def test_numbers_have_seven_digits():
    assert rounded(0.123456789) == 0.1234568 and rounded(3) == 3 and rounded(None) is None


def test_the_chart_library_is_the_published_one():
    library = (UPLOT / "uPlot.iife.min.js").read_bytes()
    assert library.startswith(b"/*! https://github.com/leeoniya/uPlot (v1.6.32) */")
    assert hashlib.sha256(library).hexdigest() == "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
    assert "Permission is hereby granted" in (UPLOT / "LICENSE").read_text()
