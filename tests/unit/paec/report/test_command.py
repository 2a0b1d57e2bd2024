"""`paec report` from the command line."""

import json

import pytest
from report_runs import write_run

from recipe.paec.report.command import expanded, main, report_of


def test_one_run(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder / 'report.html'} (0.")
    assert "finished: 8 of 8 steps" in (folder / "report.html").read_text(encoding="utf-8")


def test_several_runs(tmp_path):
    folders = [str(write_run(tmp_path / name, other=name)) for name in ("a", "b")]
    assert main([f"first={folders[0]}", folders[1], "--output", str(tmp_path / "new" / "out.html")]) == 0
    page = (tmp_path / "new" / "out.html").read_text(encoding="utf-8")
    assert "<title>first \N{MIDDLE DOT} b: PAEC report</title>" in page


def test_a_grid(tmp_path, capsys):
    for seed in (0, 1):
        write_run(tmp_path / f"t-paec-seed{seed}", seed=seed)
    grid = tmp_path / "compare-t"
    grid.mkdir()
    (grid / ".paec_folder.json").write_text('{"kind": "grid"}')
    runs = [{"label": "PAEC", "directory": str(tmp_path / f"t-paec-seed{seed}")} for seed in (0, 1, 2)]
    (grid / "table.json").write_text(json.dumps({"runs": runs}))
    assert main([str(grid), "--output", str(tmp_path / "out.html")]) == 0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<title>PAEC: PAEC report</title>" in page and "t-paec-seed1" in page
    (grid / "table.json").write_text("{")
    assert main([str(grid), "--output", str(tmp_path / "out.html")]) == 2
    assert capsys.readouterr().err.endswith("table.json cannot be read: make it again with paec grid --table-only\n")


def test_a_grid_that_was_started_elsewhere(tmp_path, monkeypatch, capsys):
    """The directories in its table are relative to the folder in which it was started."""
    write_run(tmp_path / "outputs" / "t-paec-seed0")
    grid = tmp_path / "outputs" / "compare-t"
    grid.mkdir()
    (grid / ".paec_folder.json").write_text('{"kind": "grid"}')
    (grid / "table.json").write_text(
        json.dumps({"runs": [{"label": "PAEC", "directory": "outputs/t-paec-seed0", "step": 4}]})
    )
    monkeypatch.chdir(tmp_path)
    assert [(name, folder.resolve()) for name, folder in expanded([str(grid)])[0]] == [
        ("PAEC", tmp_path / "outputs" / "t-paec-seed0")
    ]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert expanded(["../outputs/compare-t"])[0] == [("PAEC", tmp_path / "outputs" / "t-paec-seed0")]
    grid.rename(tmp_path / "moved")
    assert main([str(tmp_path / "moved"), "--output", "out.html"]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'moved'}: its runs are not found: call this in the folder in which the grid was started\n"
    )


def test_runs_that_two_grids_share_count_once(tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path / f"t-paec-seed{seed}", seed=seed)
    grids = []
    for name, seeds in (("a", (0, 1)), ("b", (1, 2))):
        grids.append(tmp_path / name)
        grids[-1].mkdir()
        (grids[-1] / ".paec_folder.json").write_text('{"kind": "grid"}')
        runs = [{"label": "PAEC", "directory": str(tmp_path / name / f"../t-paec-seed{seed}")} for seed in seeds]
        (grids[-1] / "table.json").write_text(json.dumps({"runs": runs}))
    found, scored = expanded(list(map(str, grids)))
    assert [folder.name for _, folder in found] == ["t-paec-seed0", "t-paec-seed1", "t-paec-seed2"] and scored == []
    alone, _ = expanded([f"mine={tmp_path / 't-paec-seed1'}", str(grids[1])])
    assert [(name, folder.name) for name, folder in alone] == [("mine", "t-paec-seed1"), ("PAEC", "t-paec-seed2")]


def test_figures(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    assert main([str(folder), "--figures", str(tmp_path / "figures")]) == 0
    assert {"entropy.svg", "entropy.png", "entropy.csv"} < {path.name for path in (tmp_path / "figures").iterdir()}
    assert capsys.readouterr().out.endswith(" files\n")


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["{0}/none"], "{0}/none: does not exist: give the folder of a run, or name=FOLDER"),
        (["{0}/a", "{0}/a"], "{0}/a: is given 2 times: name each run once"),
        (["{0}/a", "{0}/b"], "2 folders: say where the report goes with --output FILE"),
        (["{0}"], "{0} has no metrics.jsonl and no scores: give a run, a grid or an evaluation"),
        (["{0}/e"], "{0}/e/scores.json, field format: missing: delete it and evaluate again; the responses are kept"),
        (["{0}/a", "--output", "{0}/b"], "--output {0}/b: is a folder: give the name of a file"),
        (["{0}/a", "--figures", "{0}/a/metrics.jsonl"], "{0}/a/metrics.jsonl: is a file: choose another --figures"),
    ],
)
def test_errors_are_one_sentence(tmp_path, capsys, arguments, error):
    for name in ("a", "b"):
        write_run(tmp_path / name, other=name)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "scores.json").write_text("{}")
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    assert capsys.readouterr().err == f"error: {error.format(tmp_path)}\n"


def test_the_report_of_a_run_that_has_just_failed(tmp_path):
    folder = write_run(tmp_path / "a", last=3)
    assert report_of(folder, ended="the disk is full") == folder / "report.html"
    assert "failed at step 3 of 8: the disk is full" in (folder / "report.html").read_text(encoding="utf-8")
