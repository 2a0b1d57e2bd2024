"""Figures for a paper: files, numbers, and what is drawn."""

import csv
import math

import pytest
from matplotlib.image import imread
from report_runs import record, write_run, write_saving

from recipe.paec.report.charts import sections
from recipe.paec.report.command import content_of
from recipe.paec.report.figures import data_of, picture, write_figures
from recipe.paec.report.runs import read_run


def content_of_all(*folders):
    return content_of([(None, read_run(folder)) for folder in folders])


def groups_of(*folders):
    return content_of_all(*folders).groups


def test_every_figure_has_three_files(tmp_path):
    files = write_figures(content_of_all(write_run(tmp_path / "a")), tmp_path / "figures")
    assert {path.stem for path in files} == {
        *(
            "plane",
            "entropy",
            "avg",
            "maj",
            "pass",
            "passk-0",
            "reward",
            "length",
            "diversity",
            "clip",
            "grad",
            "stages",
        )
    }
    assert {path.name for path in files} == {path.name for path in (tmp_path / "figures").iterdir()}
    assert len(files) == 36 and imread(tmp_path / "figures" / "entropy.png").shape[1] > 600
    assert "token entropy" in (tmp_path / "figures" / "entropy.svg").read_text(encoding="utf-8").lower()


def test_the_numbers_are_the_metrics(tmp_path):
    write_figures(content_of_all(write_run(tmp_path / "a")), tmp_path / "figures")
    with open(tmp_path / "figures" / "entropy.csv", encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["training step", "all tokens", "H\u0304, selected positions", "anchor", "floor"]
    assert [[float(cell) for cell in row] for row in rows] == [
        [
            step,
            record(step)["actor/entropy"],
            *(record(step)[f"actor/paec/{name}"] for name in ("selected_entropy", "anchor", "floor")),
        ]
        for step in range(1, 9)
    ]


def test_gaps_are_empty_cells_and_breaks(tmp_path):
    folder = write_run(tmp_path / "a")
    text = (folder / "metrics.jsonl").read_text().replace('"actor/entropy": 0.4375', '"actor/entropy": null')
    (folder / "metrics.jsonl").write_text(text)
    content = content_of_all(folder)
    groups = content.groups
    write_figures(content, tmp_path / "figures")
    assert (tmp_path / "figures" / "entropy.csv").read_text(encoding="utf-8").splitlines()[4].startswith("4,,")
    chart = sections(groups)[0]["charts"][0]
    assert math.isnan(data_of(chart["series"][0], groups, 1)["y"][3])


def test_seeds_are_a_band(tmp_path):
    groups = groups_of(write_run(tmp_path / "m-seed0"), write_run(tmp_path / "m-seed1", seed=1))
    chart = sections(groups)[1]["charts"][0]
    line = data_of(chart["series"][0], groups, chart["scale"])
    assert line["y"] == pytest.approx([25.5, 38.0, 50.5]) and line["low"] == [25.0, 37.5, 50.0]
    (panel,) = picture(chart, [line]).axes
    assert list(panel.lines[0].get_ydata()) == line["y"] and len(panel.collections) == 1
    assert (panel.get_xlabel(), panel.get_ylabel(), panel.get_title(loc="left")) == ("training step", "%", "Accuracy")


def test_stages_have_a_legend_and_distinct_fills(tmp_path):
    """A stage that two steps have is nothing in the others, and is named although it is thin."""
    groups = groups_of(write_saving(tmp_path / "a"))
    (chart,) = [c for section in sections(groups) for c in section["charts"] if c["id"] == "stages"]
    lines = [data_of(entry, groups, chart["scale"]) for entry in chart["series"]]
    (panel,) = picture(chart, lines).axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [line["label"] for line in lines][::-1]
    assert len({tuple(area.get_facecolor()[0]) for area in panel.collections}) == len(lines) == 4
    (saving,) = [area for area in panel.collections if area.get_label() == "save_checkpoint"]
    heights = {x: [] for x in range(1, 9)}
    for x, y in saving.get_paths()[0].vertices:
        heights[int(x)].append(y)
    assert {x: max(ys) - min(ys) for x, ys in heights.items()} == pytest.approx(
        {x: 12.5 if x in (3, 6, 8) else 0.0 for x in range(1, 9)}
    )


def test_the_same_data_give_the_same_files(tmp_path):
    content = content_of_all(write_run(tmp_path / "a"))
    for place in ("x", "y"):
        write_figures(content, tmp_path / place)
    for name in ("entropy.svg", "stages.svg", "passk-0.csv"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_a_plane(tmp_path):
    """A row for each validation, two columns for each run; drawn as a path with a dot at its end."""
    content = content_of_all(write_run(tmp_path / "a"), write_run(tmp_path / "b", method=None, other=1, last=6))
    write_figures(content, tmp_path / "figures")
    text = (tmp_path / "figures" / "plane.csv").read_text(encoding="utf-8")
    assert text.splitlines() == [
        'training step,"a, avg@4","a, pass@4","b, avg@4","b, pass@4"',
        *("0,25.0,45.0,25.0,45.0", "4,37.5,57.49999999999999,37.5,57.49999999999999", "8,50.0,70.0,,"),
    ]
    chart = content.sections()[0]["charts"][0]
    (panel,) = picture(chart, [data_of(entry, content.groups, 100) for entry in chart["series"]]).axes
    path, end, _, _ = panel.lines
    assert [*path.get_xdata()] == [25, 37.5, 50] and [*end.get_xdata()] == [50]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("avg@4, %", "pass@4, %")
