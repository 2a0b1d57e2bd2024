"""Small copies of runs: what is left of a run, and that the recorded pair opens as a report."""

from __future__ import annotations

import json

import pytest
import yaml

from benchmarks.lab.keep import KEPT, keep, main, rounded
from benchmarks.lab.results import RECORDS
from recipe.lab.runs import run
from recipe.paec.report.command import main as report
from recipe.paec.report.runs import read_run


def test_a_copy_has_the_numbers_and_no_place_of_this_machine(small, tmp_path):
    source = tmp_path / "source"
    run(small("method=none", "steps=2", "test_every=2", "test_samples=2", f"output={source}"))
    folder = keep(source, tmp_path / "kept")
    assert folder == tmp_path / "kept" / "source" and str(tmp_path) not in (folder / "config.yaml").read_text()
    before, after = read_run(source), read_run(folder)
    assert [line["step"] for line in after.records] == [0, 1, 2]
    assert (folder / "problems.jsonl").read_text() == (source / "problems.jsonl").read_text()
    assert after.records[2]["critic/score/mean"] == pytest.approx(before.records[2]["critic/score/mean"], rel=1e-4)
    assert not any(key.startswith("timing") for key in after.records[1]) and "timing_s/step" in before.records[1]
    assert yaml.safe_load((folder / "config.yaml").read_text())["run"]["directory"] == "outputs/lab/source"
    lines = (source / "metrics.jsonl").read_text().splitlines()
    config = yaml.safe_load((source / "config.yaml").read_text())
    (source / "config.yaml").write_text(yaml.safe_dump({**config, "steps": 3}))
    with pytest.raises(ValueError, match="is at step 2 of 3: finish it first"):
        keep(source, tmp_path / "kept")
    assert json.loads(lines[2])["step"] == 2


def test_no_run_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 1
    assert "none is not a run of the laboratory: give the folder of one" in capsys.readouterr().err


def test_rounded():
    assert (rounded(0.123456789), rounded(123456.7), rounded(7), rounded(None)) == (0.12346, 123460.0, 7, None)


def test_the_recorded_pair_opens_as_a_report(tmp_path, capsys):
    pair = [KEPT / "none-seed1", KEPT / "paec-seed1"]
    for folder, method in zip(pair, ("NoMethod", "PAEC"), strict=True):
        read = read_run(folder)
        assert read.last_step == 150 and str(read.setting("method._target_")).endswith(method)
    assert report([*map(str, pair), "--output", str(tmp_path / "pair.html")]) == 0
    page = (tmp_path / "pair.html").read_text()
    assert "percentage points (95 % intervals over 100 problems)" in page
    assert "none-seed1" in page and "paec-seed1" in page and "/tmp/" not in page.replace(str(KEPT), "")


@pytest.mark.parametrize("method", ["none", "paec"])
def test_the_recorded_pair_is_that_of_the_records(method):
    record = json.loads((RECORDS / "defaults" / f"{method}-seed1.json").read_text())
    lines = [json.loads(line) for line in (KEPT / f"{method}-seed1" / "problems.jsonl").read_text().splitlines()]
    for split, counts in record["problems"].items():
        of_split = [line for line in lines if line["split"] == split]
        assert [line["step"] for line in of_split] == record["validation"]["step"]
        assert all([line[key] for line in of_split] == values for key, values in counts.items())
