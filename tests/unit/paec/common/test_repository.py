"""Where this checkout is, and its commit; and without a checkout, what pip recorded."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import pytest

from recipe.paec.common import repository


def test_the_folders_are_those_of_this_checkout():
    assert (repository.REPOSITORY / "setup.py").is_file()
    assert (repository.CONFIGS / "experiment" / "tiny_cpu.yaml").is_file()


def test_the_commit_is_whole_and_says_whether_files_have_changed(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(repository, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert repository.git_commit() is None
    git("init", "--quiet")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "--quiet", "--message=a")
    commit = git("rev-parse", "HEAD")
    assert len(commit) == 40 and repository.git_commit() == commit
    (tmp_path / "a").write_text("2")
    assert repository.git_commit() == f"{commit}-dirty"


@pytest.mark.parametrize(
    ("recorded", "commit"),
    [
        (None, None),
        ({"url": "file:///a/paec.whl", "archive_info": {}}, None),
        ({"url": "https://host/paec", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}}, "a" * 40),
    ],
)
def test_an_installed_package_has_the_commit_that_pip_recorded(monkeypatch, recorded, commit):
    read = {"direct_url.json": recorded and json.dumps(recorded)}
    monkeypatch.setattr(repository, "IS_CHECKOUT", False)
    monkeypatch.setattr(repository, "distribution", lambda name: SimpleNamespace(read_text=read.__getitem__))
    assert repository.git_commit() == commit


def test_files_without_a_history_have_the_commit_of_the_variable(tmp_path, monkeypatch):
    monkeypatch.setattr(repository, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv(repository.COMMIT, "b" * 40)
    assert repository.git_commit() == "b" * 40
    monkeypatch.setenv("PATH", str(tmp_path))  # without git
    assert repository.git_commit() == "b" * 40
    monkeypatch.setenv(repository.COMMIT, "")
    assert repository.git_commit() is None
