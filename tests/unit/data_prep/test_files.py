"""Files and folders are whole or absent, and leftovers of killed writers are removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.files import atomic_directory, atomic_write, remove_leftovers


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic_write(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_directory(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic_directory(path) as partial:
        (partial / "a").write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_directory(path) as partial:
        (partial / "a").write_text("whole")
        assert not path.exists()
    assert (path / "a").read_text() == "whole"
    with pytest.raises(FileExistsError, match="already exists"), atomic_directory(path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.fixture
def synced(monkeypatch):
    """Names of what was put on the disk, up to each rename, which is the name of its target."""
    found = []

    def fsync(descriptor, really=os.fsync):
        found.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    def renamed(source, target, really=os.rename):
        found.append(f"-> {Path(target).name}")
        really(source, target)

    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(os, "rename", renamed)
    return found


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, synced):
    with atomic_write(tmp_path / "a") as partial:
        partial.write_text("new")
    assert synced == [partial.name, "-> a"]


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, synced):
    with atomic_directory(tmp_path / "folder") as partial:
        (partial / "b").mkdir()
        for number in range(40):
            (partial / "b" / str(number)).write_text("weights")
        (partial / "link").symlink_to("nowhere")
    assert synced[-1] == "-> folder"
    assert sorted(synced[:-1]) == sorted([partial.name, "b", *map(str, range(40))])


HOLD = """
import sys, time
from data_prep.files import atomic_directory, atomic_write
with (atomic_directory if sys.argv[2] == "folder" else atomic_write)(sys.argv[1]) as partial:
    print(partial, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_of_a_killed_writer_are_removed_by_the_next(tmp_path, kind):
    """A writer that lives keeps its own; names that only look alike stay."""
    path = tmp_path / "out"
    writers = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(path), kind], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, living = (Path(writer.stdout.readline().strip()) for writer in writers)
        if kind == "folder":
            (killed / "weights").write_text("half")
        assert remove_leftovers(path) == [] and killed.exists() and living.exists()
        writers[0].kill()
        writers[0].wait()
        (tmp_path / f".out.partial-{os.getpid()}").write_text("of an older version, which lives")
        (tmp_path / ".out.partial-99999999").write_text("of an older version")
        (tmp_path / ".out.partial-mine").write_text("somebody's")
        (tmp_path / ".out2.partial-1-0123abcd").write_text("of another output")
        (tmp_path / ".out.partial-2-0123abcd").symlink_to(tmp_path / ".out.partial-mine")
        stays = {".out.partial-mine", ".out2.partial-1-0123abcd", ".out.partial-2-0123abcd"}
        stays |= {f".out.partial-{os.getpid()}", living.name, "out"}
        with (atomic_directory if kind == "folder" else atomic_write)(path) as partial:
            if kind == "file":
                partial.write_text("new")
        assert {entry.name for entry in tmp_path.iterdir()} == stays
        assert path.is_dir() if kind == "folder" else path.read_text() == "new"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


def test_writers_at_once_do_not_take_each_other_for_leftovers(tmp_path):
    """Each of them looks for leftovers while others have just made theirs."""
    script = """
import sys
from data_prep.files import atomic_write
for number in range(200):
    with atomic_write(sys.argv[1]) as partial:
        partial.write_text(sys.argv[2])
        assert partial.read_text() == sys.argv[2]
"""
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    writers = [subprocess.Popen([*command, letter]) for letter in "abc"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
