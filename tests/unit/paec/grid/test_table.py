"""The table of a grid: values by hand, text, and the picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from grid_cases import made_run

from recipe.paec.grid.runs import GridRun
from recipe.paec.grid.table import picture, run_values, summarize, to_markdown, write


def line(step: int, entropy: float | None, length: float, seconds: float, save: float = 0.0, **val: float) -> dict:
    record = {"step": step, "actor/entropy": entropy, "response_length/mean": length, "timing_s/step": seconds}
    record |= {"timing_s/save_checkpoint": save} if save else {}
    return record | {f"val/{key.replace('__', '/')}".replace("_at_", "@"): value for key, value in val.items()}


def test_values_of_a_run_by_hand():
    """12 steps: the last tenth, rounded up, are two; validation before the first and after the last."""
    steps = [line(s, 1.0 / s, 10.0 * s, 2.0 + s, save=s % 2) for s in range(1, 12)]
    steps.append(line(12, 0.25, 100.0, 50.0, save=40.0, amc__avg_at_2=0.5, amc__maj_at_2=0.25, aime__avg_at_2=0.1))
    found = run_values([{"step": 0, "val/amc/avg@2": 0.9}, *steps])
    assert found["accuracy"] == {
        "aime": {"avg@2": 0.1},
        "amc": {"avg@2": 0.5, "maj@2": 0.25},
        "average": {"avg@2": pytest.approx(0.3)},
    }
    assert found["entropy"] == pytest.approx((1 / 11 + 0.25) / 2)
    assert found["length"] == pytest.approx((110 + 100) / 2)
    assert found["seconds"] == pytest.approx(8.0)  # the middle of 2 4 4 6 6 8 8 10 10 10 12 12
    assert run_values([line(1, None, 3.0, 1.0)])["entropy"] is None, "NaN is no value"


def finished_pair(root: Path) -> list[GridRun]:
    """Two methods with two seeds; one run has not ended, one has not started."""
    source = {"amc23__avg_at_4": 0.25, "amc23__maj_at_4": 0.5, "amc23__pass_at_4": 0.75, "amc23__pass_at_2": 0.6}
    better = {**source, "amc23__avg_at_4": 0.35}
    return [
        made_run(root / "t-none-seed0", [line(1, 0.4, 9, 3), line(2, 0.5, 10, 4, **source)], 2),
        made_run(root / "t-none-seed1", [line(1, 0.4, 9, 3), line(2, 0.7, 12, 6, **better)], 2),
        made_run(root / "t-paec-seed0", [line(1, 0.4, 9, 3), line(2, 0.6, 11, 5, **better)], 2),
        made_run(root / "t-paec-seed1", [line(1, 0.4, 9, 3)], 1),
        GridRun("siren", 0, root / "t-siren-seed0", 2, saves=True, exports=True),
    ]


ABOUT = {"experiment": "t", "methods": ["none", "paec", "siren"], "overrides": ["lora.rank=2"]}


def test_means_and_intervals_by_hand(tmp_path):
    runs = finished_pair(tmp_path)
    result = summarize(runs, {runs[3].directory: "disk full"}, ABOUT)
    none, paec, siren = result["methods"]
    assert (none["label"], none["seeds"], none["of"]) == ("none", [0, 1], 2)
    half = 12.706204736 * math.sqrt(2 * 0.05**2) / math.sqrt(2)  # t of one degree of freedom, sd / sqrt(n)
    expected = {"value": 0.3, "low": 0.3 - half, "high": 0.3 + half}
    assert none["accuracy"]["amc23"]["avg@4"] == pytest.approx(expected)
    assert none["accuracy"]["amc23"]["pass@2"] == pytest.approx({"value": 0.6, "low": 0.6, "high": 0.6})
    assert none["entropy"]["value"] == pytest.approx(0.6) and none["length"]["value"] == pytest.approx(11)
    assert none["seconds"]["value"] == pytest.approx((3.5 + 4.5) / 2)
    assert (paec["seeds"], paec["of"]) == ([0], 2)
    assert paec["accuracy"]["amc23"]["avg@4"] == {"value": 0.35, "low": None, "high": None}
    assert siren["seeds"] == [] and siren["accuracy"] == {} and siren["entropy"] is None
    assert [run["step"] for run in result["runs"]] == [2, 2, 2, 1, None]


def test_the_table_as_text(tmp_path):
    runs = finished_pair(tmp_path)
    text = to_markdown(summarize(runs, {runs[3].directory: "disk full"}, ABOUT))
    lines = text.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in lines if row.startswith("|")]
    assert cells[0] == ["Method", "seeds", "avg@4", "maj@4", "pass@4", "entropy", "length", "s / step"]
    assert cells[2] == [
        "none",
        "2",
        "30.0 ± 63.5",
        "50.0 ± 0.0",
        "75.0 ± 0.0",
        "0.6000 ± 1.2706",
        "11.0 ± 12.7",
        "4.0 ± 6.4",
    ]
    assert cells[3] == ["paec", "1 of 2", "35.0", "50.0", "75.0", "0.6000", "11.0", "4.0"]
    assert cells[4] == ["siren", "0 of 1", "-", "-", "-", "-", "-", "-"]
    assert "t, 2 steps." in text and "validation on amc23 after the last step" in text and "lora.rank=2" in text
    assert lines[-2:] == [
        "* paec, seed 1: at step 1 of 2; its last attempt failed: disk full",
        "* siren, seed 0: not started",
    ]


def test_before_a_run_has_finished_there_are_no_accuracies_to_explain(tmp_path):
    text = to_markdown(summarize(finished_pair(tmp_path)[3:], {}, ABOUT))
    assert "Accuracies" not in text and "validation on" not in text
    assert "t, 2 steps. Entropy (nats) and response length (tokens) of the training rollouts: mean over" in text


def test_several_validation_sets_have_their_columns_and_a_mean(tmp_path):
    values = {f"{name}__{m}_at_2": v for name, v in (("math500", 0.5), ("aime24", 0.1)) for m in ("avg", "maj", "pass")}
    run = made_run(tmp_path / "t-none-seed0", [line(2, 0.5, 1, 1, **values)], 2)
    head, _, row = to_markdown(summarize([run], {}, ABOUT)).splitlines()[:3]
    names = [cell.strip() for cell in head.strip("|").split("|")]
    assert names[2:8:3] == ["AIME24 avg@2", "MATH500 avg@2"] and names[8] == "average avg@2"
    assert [cell.strip() for cell in row.strip("|").split("|")][2:11:3] == ["10.0", "50.0", "30.0"]


def test_different_commits_are_remarked_upon(tmp_path):
    runs = finished_pair(tmp_path)
    for run, commit in zip(runs, ("aa", "aa", "bb-dirty"), strict=False):
        (run.directory / "versions.json").write_text(json.dumps({"git_commit": commit}))
    (remark,) = summarize(runs, {}, ABOUT)["remarks"]
    assert remark.endswith("different commits of this repository: aa (t-none-seed0), bb-dirty (t-paec-seed0)")


def test_the_picture_draws_means_and_the_range_over_seeds(tmp_path):
    runs = finished_pair(tmp_path / "runs")
    accuracy, entropy = picture(runs).axes
    assert [list(line.get_ydata()) for line in entropy.lines] == [pytest.approx([0.4, 0.6])] * 2
    (band,) = entropy.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices.round(9)} >= {(2.0, 0.5), (2.0, 0.7), (1.0, 0.4)}
    assert accuracy.get_title("left") == "AMC23 avg@4, %"
    swapped = picture(runs[::-1]).axes[1]
    assert [line.get_color() for line in swapped.lines] == [line.get_color() for line in entropy.lines][::-1]
    assert [line.get_ydata()[0] for line in accuracy.lines] == pytest.approx([30.0, 35.0])
    text, files = write(tmp_path, runs, {}, ABOUT)
    assert [file.name for file in files] == ["table.md", "table.json", "curves.png"]
    assert files[0].read_text() == text and files[2].read_bytes().startswith(b"\x89PNG")
    assert json.loads(files[1].read_text())["methods"][0]["label"] == "none"
    assert picture(runs[3:]) is None
