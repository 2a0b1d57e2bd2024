"""Curves as they are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from comparison_cases import HIGH, LOW, evaluation, run

from recipe.paec.compare.curves import picture, read_curves
from recipe.paec.compare.evaluations import SCORES_FILE
from recipe.paec.compare.palette import COLOURS
from recipe.paec.scoring.estimators import bootstrap_interval


def curve_folder(folder: Path, name: str, by_step: dict[int, dict]) -> Path:
    steps = []
    for step, counts in by_step.items():
        evaluation(folder / f"step_{step}", counts, step=step)
        steps.append({"step": step, "scores": f"step_{step}/{SCORES_FILE}"})
    (folder / "curve.json").write_text(json.dumps({"run": name, "steps": steps}))
    return folder


@pytest.fixture
def curves(tmp_path):
    return [
        curve_folder(tmp_path / "1" / "evaluation", "grpo", {20: LOW, 0: LOW, 5: LOW}),
        curve_folder(tmp_path / "2" / "evaluation", "paec-seed1", {0: LOW, 20: HIGH}),
        curve_folder(tmp_path / "3" / "evaluation", "paec-seed2", {0: LOW, 20: HIGH}),
    ]


def test_curve_draws_the_scores(curves):
    figure = picture(read_curves([str(folder) for folder in curves]))
    assert len(figure.axes) == 6
    assert [panel.get_title(loc="left") for panel in figure.axes[:2]] == ["AIME24  (n = 4)", "MATH500  (n = 4)"]
    assert [figure.axes[i].get_ylabel() for i in (0, 2, 4)] == ["avg@n, %", "maj@n, %", "pass@n, %"]
    grpo, paec = figure.axes[0].lines
    assert list(grpo.get_xdata()) == [0, 5, 20] and list(paec.get_xdata()) == [0, 20]
    np.testing.assert_allclose(grpo.get_ydata(), [7.5, 7.5, 7.5])
    np.testing.assert_allclose(paec.get_ydata(), [7.5, 55.0])
    np.testing.assert_allclose(figure.axes[3].lines[1].get_ydata(), [75.0, 75.0])  # maj, MATH500
    np.testing.assert_allclose(figure.axes[4].lines[1].get_ydata(), [30.0, 100.0])  # pass, AIME24
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    interval = bootstrap_interval([c / 4 for c in LOW["aime24"]])
    assert (band.min(), band.max()) == pytest.approx((100 * interval.low, 100 * interval.high))
    assert (grpo.get_color(), paec.get_color()) == COLOURS[:2]
    swapped = picture(read_curves([str(folder) for folder in [*curves[1:], curves[0]]]))
    assert [line.get_color() for line in swapped.axes[0].lines] == [*COLOURS[1::-1]], "in every order the same"
    # The names are next to the last column, separated from each other even if the lines end together.
    for panel in figure.axes[1::2]:
        names = {text.get_text(): text.xy for text in panel.texts}
        assert set(names) == {"grpo", "paec"}
        assert abs(names["grpo"][1] - names["paec"][1]) > 0.12 and max(y for _, y in names.values()) <= 1.0


@pytest.mark.parametrize("share", [0, 4])
def test_names_stay_next_to_their_panel(tmp_path, share):
    names = ["a", "b", "c", "d"]
    folders = [curve_folder(tmp_path / name, name, {0: {"aime24": [share] * 3}}) for name in names]
    figure = picture(read_curves([str(folder) for folder in folders]))
    for panel in figure.axes:
        heights = sorted(text.xy[1] for text in panel.texts)
        assert len(heights) == 4 and heights[0] >= 0 and heights[-1] <= 1 and min(np.diff(heights)) > 0.12


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_curve_command(curves, tmp_path, capsys, suffix):
    target = tmp_path / "pictures" / f"curve.{suffix}"
    code, out, error = run(capsys, *curves, "--curve", target, "--benchmark", "aime24")
    assert (code, out, error) == (0, "", "")
    assert target.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_curves_that_cannot_be_drawn(curves, tmp_path, capsys):
    _, _, error = run(capsys, *curves, "--curve", tmp_path / "a.png", "--baseline", "grpo")
    assert error == "error: --curve draws a picture and prints no table: leave --baseline out\n"
    assert "give a name that ends in .png or .svg" in run(capsys, *curves, "--curve", tmp_path / "a.gif")[2]
    _, _, error = run(capsys, curves[0], f"grpo={curves[1]}", "--curve", tmp_path / "a.png")
    assert "are seeds of grpo at different steps (0, 20 and 0, 5, 20): evaluate the same checkpoints" in error
    (curves[0] / "step_5" / SCORES_FILE).unlink()
    code, _, error = run(capsys, curves[0], "--curve", tmp_path / "a.png")
    assert code == 2 and "does not exist: evaluate the model" in error
    for content, message in [({"run": "a", "steps": []}, "field steps: is empty"), ({"run": "a"}, "not a curve"),
                             ({"run": "a", "steps": [{"step": "x", "scores": "y"}]}, "not a curve")]:  # fmt: skip
        (curves[0] / "curve.json").write_text(json.dumps(content))
        assert message in run(capsys, curves[0], "--curve", tmp_path / "a.png")[2]
    (curves[0] / "curve.json").unlink()
    assert "evaluate all checkpoints of the run" in run(capsys, curves[0], "--curve", tmp_path / "a.png")[2]
    assert not list(tmp_path.glob("*a.png*"))
