"""A Ray node without Slurm: its token, its folder, and that nothing survives it."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.ray_node import node as ray_node_node

REPOSITORY = Path(__file__).resolve().parents[4]


def test_token_is_private_and_kept(tmp_path, monkeypatch):
    path = tmp_path / "new" / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(UserError, match="does not exist: copy the head's token there"):
        ray_node_node.token_file(create=False)
    assert ray_node_node.token_file(create=True) == path
    first = path.read_text()
    assert len(first) == 64 and int(first, 16) > 0 and path.stat().st_mode & 0o777 == 0o600
    assert ray_node_node.token_file(create=True).read_text() == first
    path.chmod(0o640)
    with pytest.raises(UserError, match="can be read by other users: run"):
        ray_node_node.token_file(create=False)


def node_folder(root: Path, name: str, mark: str = ray_node_node.MARK) -> Path:
    """A node's temporary folder as `run_node` makes it."""
    folder = root / name
    folder.mkdir(mode=0o700)
    (folder / ray_node_node.LOCK).write_text(mark.format(host=socket.gethostname()))
    (folder / "r").mkdir()
    (folder / "r" / "file").touch()
    return folder


def test_only_folders_of_dead_nodes_are_removed(tmp_path):
    node_folder(tmp_path, "ray-dead")
    alive = node_folder(tmp_path, "ray-alive")
    with open(alive / ray_node_node.LOCK) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ray_node_node.remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["ray-alive"]
    ray_node_node.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["a word of its command", "an open file"])
def test_a_folder_stays_while_a_process_of_the_dead_node_lives(tmp_path, how):
    folder = node_folder(tmp_path, "ray-killed")
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with open(folder / "r" / "file") as stream:
        if how == "an open file":
            process = subprocess.Popen(command, stdin=stream)
        else:
            process = subprocess.Popen([*command, f"--temp-dir={folder}/r"])
    assert ray_node_node.users(folder) == [process.pid]
    ray_node_node.remove_leftovers(tmp_path)
    assert (folder / "r" / "file").is_file()
    process.kill()
    process.wait()
    ray_node_node.remove_leftovers(tmp_path)
    assert not folder.exists()


def test_what_is_not_ours_is_neither_removed_nor_waited_for(tmp_path):
    """Another program's folder, another host's, an open one, a link to one of ours, and a pipe in the lock's place."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "ray-link").symlink_to(node_folder(elsewhere, "ray-real"))
    node_folder(root, "ray-unmarked", "")
    node_folder(root, "ray-host", "paec ray node on another")
    node_folder(root, "ray-open").chmod(0o755)
    lock = node_folder(root, "ray-lock") / ray_node_node.LOCK
    lock.rename(elsewhere / "lock")
    lock.symlink_to(elsewhere / "lock")
    os.mkfifo(node_folder(root, "ray-pipe", "") / "pipe")
    (root / "ray-pipe" / "pipe").rename(root / "ray-pipe" / ray_node_node.LOCK)
    (root / "ray-file").touch()
    before = sorted(tmp_path.rglob("*"))
    ray_node_node.remove_leftovers(root)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_of_another_user(tmp_path, monkeypatch):
    folder = node_folder(tmp_path, "ray-theirs")
    monkeypatch.setattr(ray_node_node.os, "getuid", lambda: folder.stat().st_uid + 1)
    ray_node_node.remove_leftovers(tmp_path)
    assert (folder / "r" / "file").is_file()


# Deaf to SIGTERM, with a deaf daemon that keeps writing into the folder.
DEAF = """
import signal, subprocess, sys, time
signal.signal(15, signal.SIG_IGN)
if len(sys.argv) > 2:
    subprocess.Popen([sys.executable, *sys.orig_argv[1:-1]], start_new_session=True)
else:
    print("deaf", flush=True)
for i in range(6000):
    open(f"{sys.argv[1]}/{i}", "w").close()
    time.sleep(0.01)
"""


def test_the_end_of_a_node_is_bounded_and_complete(tmp_path):
    """In a process of its own, which becomes what Ray's orphans belong to."""
    code = f"""
import subprocess, sys, time
from pathlib import Path
from recipe.paec.ray_node import node as ray_node
folder = Path({str(tmp_path / "ray-x")!r})
folder.mkdir()
ray_node.prctl(ray_node.PR_SET_CHILD_SUBREAPER, 1)
command = [sys.executable, "-c", {DEAF!r}, str(folder), "daemon"]
ray = subprocess.Popen(command, stdout=subprocess.PIPE)
ray.stdout.readline()
began = time.monotonic()
ray_node.end(ray, grace=0.5)
ray_node.remove(folder)
print(time.monotonic() - began, folder.exists(), ray_node.users(folder))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    seconds, *rest = done.stdout.split()
    assert rest == ["False", "[]"], done.stdout + done.stderr
    assert 0.5 <= float(seconds) < 0.5 + ray_node_node.KILLED + 2


def test_a_worker_outlasts_the_head():
    """On SIGTERM a batch job's worker stays while the head listens, and is gone soon after it."""
    with socket.create_server(("127.0.0.1", 0)) as head:
        call = f"from recipe.paec.ray_node import node; node.outlast('127.0.0.1:{head.getsockname()[1]}', 15)"
        worker = subprocess.Popen([sys.executable, "-c", call], cwd=REPOSITORY)
        head.settimeout(60)
        head.accept()[0].close()
        head.accept()[0].close()
        assert worker.poll() is None
    assert worker.wait(20) == 143
