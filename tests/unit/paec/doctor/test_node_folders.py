"""Shared memory and the folder for Ray's files: small, full, missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from recipe.paec.doctor import node_folders
from recipe.paec.doctor.report import Check


def test_small_shared_memory(tiny_config, small_disk, monkeypatch):
    monkeypatch.setattr(node_folders, "SHM", small_disk(64))
    (problem,) = node_folders.shared_memory(tiny_config()).errors
    assert problem.startswith("shared memory: 64 MiB free in ") and "0.1 GiB needed" in problem
    assert "docker run --shm-size=16g" in problem
    monkeypatch.setattr(node_folders, "SHM", small_disk(300))
    check = node_folders.shared_memory(tiny_config())
    assert check.errors == () and any("but Ray needs" in note for note in check.notes)


def test_segments_of_killed_processes():
    """A segment in use is nobody's rubbish; the same one is, when its process was killed."""
    code = (
        "from multiprocessing import shared_memory\n"
        "segment = shared_memory.SharedMemory(create=True, size=5000)\n"
        "print(segment.name, flush=True)\n"
        "import os, signal, sys\n"
        "from multiprocessing import resource_tracker\n"
        "os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)\n"  # with it, the segment would go too
        "sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    segment = node_folders.SHM / owner.stdout.readline().strip()
    try:
        assert segment.name.startswith("psm_")
        os.utime(segment, (time.time() - 3600,) * 2)
        assert segment not in node_folders.leftover_segments()
        owner.kill()
        owner.wait()
        assert segment in node_folders.leftover_segments()
        os.utime(segment)
        assert segment not in node_folders.leftover_segments()  # it may be about to be used
    finally:
        owner.kill()
        owner.communicate()
        segment.unlink()


def test_a_segment_that_vanishes_while_it_is_looked_at(tmp_path):
    """Listed, but not there: here a link to nothing."""
    (tmp_path / "psm_gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "psm_old").touch()
    os.utime(tmp_path / "psm_old", (time.time() - 3600,) * 2)
    assert node_folders.leftover_segments(tmp_path) == [tmp_path / "psm_old"]


def test_folder_of_rays_files(tiny_config, small_disk, monkeypatch):
    folder = small_disk(100)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (problem,) = node_folders.scratch(tiny_config()).errors
    assert problem.startswith(f"{folder}: 100 MiB free for Ray's logs and objects, 2.0 GiB needed")
    (folder / "full").write_bytes(bytes(97 * 2**20))
    (problem,) = node_folders.scratch(tiny_config()).errors
    assert (
        f"{folder}: its file system is 97% full, and Ray stores nothing there above 95%: free" in problem
        and "RAY_TMPDIR" in problem
    )
    monkeypatch.setenv("RAY_TMPDIR", str(folder / "nowhere"))
    (problem,) = node_folders.scratch(tiny_config()).errors
    assert "the folder for Ray's files does not exist" in problem


def test_the_files_of_another_node(tiny_config, tiny_files, tmp_path):
    """One file may be given as text instead of a list."""
    file = tmp_path / "train.parquet"
    shutil.copy(tiny_files / "data" / "train.parquet", file)
    config = tiny_config(f"data.train_files={file}")
    assert config.data.train_files == str(file)
    there = node_folders.files_here(config)
    assert there == [config.model.path, str(file), *config.data.val_files]
    assert node_folders.same_files(config, there).errors == ()
    file.unlink()
    (problem,) = node_folders.same_files(config, there).errors
    assert problem.startswith(f"{file} is not on node ")


def test_files_that_the_run_creates_are_on_no_node_yet(tiny_config, tmp_path):
    """A run whose preparation makes model and data starts on a Ray cluster too."""
    config = tiny_config(f"model.path={tmp_path}/model", f"data.train_files={tmp_path}/train.parquet")
    config.data.val_files = [f"{tmp_path}/validation.parquet"]
    expected = node_folders.files_here(config)
    assert expected == []
    assert node_folders.same_files(config, expected) == Check("files", "model and data do not exist yet")
