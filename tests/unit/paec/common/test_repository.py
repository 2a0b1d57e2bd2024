"""Where this checkout is, and its commit."""

from __future__ import annotations

import subprocess

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
