"""Only what the patterns say is removed."""

from __future__ import annotations

import pytest
from run_folders import tree, write

from data_prep.cleaning import contents, leads_to, matches, remove


@pytest.mark.parametrize(
    ("path", "patterns", "file", "folder"),
    [
        ("a", ["a"], True, False),
        ("a", ["a/b"], False, True),
        ("a/b", ["a/b"], True, False),
        ("a/b/c", ["a/b"], False, False),
        ("step_12", ["step_#/x"], False, True),
        ("step_1_old", ["step_#/x"], False, False),
        ("step_/x", ["step_#/x"], False, False),
        ("step_²/x", ["step_#/x"], False, False),
        ("a/b/c", ["a/**"], True, True),
        ("a", ["a/**"], False, True),
        ("ab/c", ["a*/c"], True, False),
        ("a/b/c", ["a*/c"], False, False),
        ("a.b", ["a+b"], False, False),
        ("a\nb", ["a*"], True, False),
        ("x", [], False, False),
    ],
)
def test_patterns(path, patterns, file, folder):
    assert (matches(path, patterns), leads_to(path, patterns)) == (file, folder)


def test_only_what_the_patterns_say_is_removed(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    write(outside, "a.txt", "deep/a.txt")
    write(folder, "a.txt", "b.txt", "deep/a.txt", "deep/b.txt", "own/a.txt", "other/a.txt")
    (folder / "link").symlink_to(outside)
    (folder / "own/link").symlink_to(outside / "a.txt")
    patterns = ("a.txt", "deep/a.txt", "own/*", "link/a.txt", "link/deep/**")
    before = tree(outside)
    found = contents(folder, patterns)
    assert found.own == ["a.txt", "deep/a.txt", "own/a.txt"]
    assert found.links == ["link", "own/link"]
    assert found.foreign == ["b.txt", "deep/b.txt", "other/"]
    assert remove(folder, patterns) == ["a.txt", "deep/a.txt", "own/a.txt"]
    assert sorted(tree(folder)) == ["b.txt", "deep", "deep/b.txt", "link", "other", "other/a.txt", "own", "own/link"]
    assert tree(outside) == before
    (folder / "own/link").unlink()
    assert remove(folder, patterns) == [] and not (folder / "own").exists(), "an empty folder of the patterns goes"
