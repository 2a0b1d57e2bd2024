"""The curve of a run's checkpoints: those of earlier calls stay in it."""

from __future__ import annotations

import json
from pathlib import Path

from comparison_cases import evaluation

from recipe.paec.evaluate.curve import write_curve
from recipe.paec.evaluate.targets import Target


def targets(folder: Path, *steps: int) -> list[Target]:
    return [Target("m", folder, True, Path("outputs/r"), step, folder / f"step_{step}") for step in steps]


def steps_of(folder: Path) -> list[int]:
    content = json.loads((folder / "curve.json").read_text())
    assert content["run"] == "r" and all((folder / entry["scores"]).is_file() for entry in content["steps"])
    return [entry["step"] for entry in content["steps"]]


def test_checkpoints_of_earlier_calls_stay(tmp_path, capsys):
    for step in (0, 5, 10):
        evaluation(tmp_path / f"step_{step}", {"aime24": [1, step // 5]}, step=step, run="r")
    write_curve(targets(tmp_path, 0, 5))
    assert steps_of(tmp_path) == [0, 5, 10] and (tmp_path / "curve.png").is_file()
    evaluation(tmp_path / "step_20", {"aime24": [4, 4]}, step=20, run="r")
    write_curve(targets(tmp_path, 20))
    assert steps_of(tmp_path) == [0, 5, 10, 20]
    evaluation(tmp_path / "step_7", {"aime24": [1, 1]}, step=7, run="r", temperature=1.0)
    evaluation(tmp_path / "step_8", {"math500": [1, 1]}, step=8, run="r")
    evaluation(tmp_path / "step_9", {"aime24": [1, 1]}, step=9, run="another")
    (tmp_path / "step_11").mkdir()
    (tmp_path / "step_11" / "scores.json").write_text("{")
    capsys.readouterr()
    write_curve(targets(tmp_path, 20, 5))
    assert steps_of(tmp_path) == [0, 5, 10, 20]
    left_out = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: the curve leaves ")]
    assert [line.split("step_")[1].split(" ")[0] for line in left_out] == ["11", "7", "8"]


def test_one_checkpoint_is_no_curve_and_other_files_stay(tmp_path, capsys):
    evaluation(tmp_path / "step_5", {"aime24": [1, 1]}, step=5, run="r")
    write_curve(targets(tmp_path, 5))
    assert [path.name for path in tmp_path.iterdir()] == ["step_5"]
    evaluation(tmp_path / "step_6", {"aime24": [1, 1]}, step=6, run="r")
    (tmp_path / "curve.json").write_text('["mine"]')
    write_curve(targets(tmp_path, 6))
    assert (tmp_path / "curve.json").read_text() == '["mine"]'
    assert "note: no curve: " in capsys.readouterr().out
