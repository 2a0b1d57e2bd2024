"""`paec search`: the line, the folder, and errors before anything runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from search_cases import FILE, NEEDS_OPTUNA, Made

from recipe.paec.common.errors import UserError
from recipe.search import command, lab
from recipe.search.command import check_folder, main
from recipe.search.studies import optuna_module


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of a search, whose runs are a formula."""
    pytest.importorskip("optuna", reason=NEEDS_OPTUNA)
    monkeypatch.setattr(lab, "Lab", lambda request, folder, processes: Made())
    (tmp_path / "made.yaml").write_text(json.dumps(FILE))
    return tmp_path / "made.yaml"


def test_from_the_file_to_the_table(file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(file)]) == 0
    said = capsys.readouterr().out
    assert "3 methods, 7 settings, 2 seeds: 14 runs of 4 steps, in outputs/search/made\n" in said
    assert "Budget: the same for every method with a knob: 3 settings x 2 seeds = 6 runs, 24 steps." in said
    assert json.loads((tmp_path / "outputs/search/made/search.json").read_text())["equal"]


def test_a_failure_is_exit_code_1(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lab, "Lab", lambda request, folder, processes: Made(fails=("paec-0",)))
    assert main([str(file), "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "error: paec-0: no room on the disk\n"
    monkeypatch.setattr(lab, "Lab", lambda request, folder, processes: Made())
    assert main([str(file), "--output", str(tmp_path / "out")]) == 0


def test_a_dry_run_writes_nothing(file, tmp_path, capsys):
    assert main([str(file), "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "none: 1 settings; no knob, so its default alone\n" in said
    assert "clip_cov: 3 settings; ratio [0.0002, 0.002, 0.02]\n" in said and "nothing was started" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--processes", "0"], "--processes 0: must be at least 1"),
        (["--output", "{file}"], "{file} is not a folder: choose another --output"),
        (["--output", "{folder}"], "{folder} contains made.yaml but no search: choose another --output"),
    ],
)
def test_errors(file, tmp_path, capsys, arguments, sentence):
    places = {"file": file, "folder": tmp_path}
    assert main([str(file), *(argument.format(**places) for argument in arguments)]) == 2
    assert capsys.readouterr().err == f"error: {sentence.format(**places)}\n"


def test_processes_are_the_laboratorys(file, capsys):
    file.write_text(json.dumps({**FILE, "runner": "pipeline"}))
    assert main([str(file), "--processes", "2"]) == 2
    assert "--processes: the pipeline trains one run at a time" in capsys.readouterr().err


def test_a_folder_may_be_new_empty_or_a_search(tmp_path):
    check_folder(tmp_path / "new", "journal.log")
    check_folder(tmp_path, "journal.log")
    (tmp_path / ".lock").touch()
    check_folder(tmp_path, "journal.log")
    (tmp_path / "a").touch()
    with pytest.raises(UserError, match="contains a but no search"):
        check_folder(tmp_path, "journal.log")
    (tmp_path / "journal.log").touch()
    check_folder(tmp_path, "journal.log")


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"^paec search needs Optuna, .*: pip install -e '.\[search\]' in the repo"):
        optuna_module()


def test_a_folder_that_cannot_be_written_is_one_sentence(monkeypatch, capsys):
    """/sys takes no folder, not even of root."""
    monkeypatch.setattr(command, "run", lambda arguments: Path("/sys/paec-search").mkdir())
    assert main(["made.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: /sys/paec-search: ") and said.count("\n") == 1
    assert said.endswith(": free some space, or choose a writable folder with --output\n")
