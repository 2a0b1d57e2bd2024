"""Names and places of folders: what can be, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.paec.common import folder_names
from recipe.paec.common.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("name", ["a", "tiny_cpu-paec-seed=7", "a,b", "my run", "Größe", 5, 1.5, "x" * 200])
def test_names_that_can_be(name):
    assert folder_names.name_error("run.name", name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty (an unset shell variable?)"),
        ("  ", "is empty"),
        (None, "run.name=None must be the name of one folder: correct it,"),
        (True, "run.name=True must be the name of one folder: correct it,"),
        ([], "must be the name of one folder: correct it,"),
        (".", "must not begin with a dot"),
        ("..", "must not begin with a dot"),
        (".hidden", "must not begin with a dot"),
        ("-rf", "must not begin with a dot, a dash"),
        ("~", "must not begin with a dot, a dash or ~"),
        ("a/b", "without a separator"),
        ("../../escape", "without a separator"),
        ("/etc", "without a separator"),
        ("a\\b", "without a separator"),
        ("a\nb", "unprintable character:"),
        ("a\x00b", "unprintable character:"),
        ("a\u202eb", "unprintable character:"),
        ("a\udcffb", "unprintable character:"),
        (" a", "begins or ends with a space"),
        ("x" * 201, "has 201 bytes"),
        ("ü" * 101, "has 202 bytes"),
        ("slurm", "is reserved"),
    ],
)
def test_invalid_names(name, reason):
    problem = folder_names.name_error("run.name", name)
    assert problem.startswith("run.name=") and reason in problem and "\n" not in problem
    assert problem.endswith(("choose another name", "or leave run.name out"))
    problem.encode()  # can be printed


@pytest.mark.parametrize(
    ("root", "directory", "reason"),
    [
        ("", None, "run.root='' is empty (an unset shell variable?)"),
        (None, None, "run.root=None must be the path of a folder"),
        ("/", None, "run.root=/ is the root of the file system"),
        ("{tmp}/file", None, "{tmp}/file is a file"),
        ("{tmp}/file/deeper", None, "{tmp}/file is a file"),
        ("{tmp}/nowhere", None, "{tmp}/nowhere is a broken symbolic link"),
        ("~nosuchuser", None, "this user does not exist:"),
        ("{tmp}/a", "", "run.directory='' is empty"),
        ("{tmp}/a", "/", "run.directory=/ is the root"),
        ("{tmp}/a", "~", "it is your home folder"),
        ("{tmp}/a", "{home_above}", "it contains your home folder"),
        ("{tmp}/a", str(REPOSITORY), "it is this repository"),
        ("{tmp}/a", str(REPOSITORY.parent), "it contains this repository"),
        ("{tmp}/a", "{tmp}/a", "contains run.root={tmp}/a, the folder of all runs: "),
        ("{tmp}/a", "{tmp}", "contains run.root={tmp}/a, the folder of all runs: "),
        ("{tmp}/a", "{tmp}/a/b/..", "contains run.root={tmp}/a, the folder of all runs: "),
        ("{tmp}/a", "{tmp}/file", "{tmp}/file is a file"),
    ],
)
def test_invalid_places(tmp_path, monkeypatch, root, directory, reason):
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "homes" / "me").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "homes" / "me"))
    names = {"tmp": tmp_path, "home_above": tmp_path / "homes"}
    root, directory = (value and value.format(**names) for value in (root, directory))
    given = f"{root}/mine" if directory is None else directory
    (problem,) = folder_names.run_errors(root, "mine", given)
    assert reason.format(**names) in problem and "\n" not in problem


def test_places_that_can_be(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert folder_names.run_errors(str(tmp_path / "root"), "mine", str(tmp_path / "root" / "mine")) == []
    assert folder_names.run_errors("outputs", "mine", "outputs/mine") == []
    assert folder_names.run_errors(str(tmp_path), "mine", str(tmp_path.parent / "elsewhere")) == []


@pytest.mark.parametrize(
    "override", ["run.name=", "run.name=..", "run.name='a/b'", "run.experiment='../x'", "run.root="]
)
def test_every_command_checks_them(compose, override):
    with pytest.raises(UserError, match=r"^run\.(name|root)="):
        compose(override)
