"""Processes that are forked from one that has imported everything, and cannot be told from an interpreter's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from recipe.paec.common import fork_server

STARTER = """
import sys, numpy
from recipe.paec.common import fork_server
print(fork_server.start(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def starter():
    """A process that has started a server; its name."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.name = process.stdout.readline().strip()
    yield process
    process.stdin.close()
    process.stdout.close()
    assert process.wait(10) == 0


def run(starter, *arguments: str, **keywords) -> subprocess.CompletedProcess:
    command = [*fork_server.command(starter.name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **keywords)


def eventually(condition) -> bool:
    """Whether `condition` becomes true within 10 seconds."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_arguments_environment_folder_and_exit_code(starter, tmp_path):
    code = "import os, sys; print('numpy' in sys.modules, sys.argv, os.environ, os.getcwd()); sys.exit(7)"
    done = run(starter, "-c", code, "a b", env={"ONLY": "é", "LC_ALL": "C.UTF-8"}, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f"True ['-c', 'a b'] environ({{'ONLY': 'é', 'LC_ALL': 'C.UTF-8'}}) {tmp_path}\n"


def test_a_file_is_the_main_module(starter, tmp_path):
    file = tmp_path / "file.py"
    file.write_text("import sys\nif __name__ == '__main__':\n    print(sys.argv, __file__, len(sys.stdin.read()))\n")
    done = run(starter, file, "x", input="1234")
    assert (done.returncode, done.stdout) == (0, f"['{file}', 'x'] {file} 4\n")


def test_a_module_is_run_by_name(starter):
    done = run(starter, "-u", "-m", "json.tool", "--compact", input="[1,  2]")
    assert (done.returncode, done.stdout) == (0, "[1,2]\n")


@pytest.mark.parametrize(
    ("code", "returned", "said"),
    [
        ("raise SystemExit('a reason')", 1, "a reason\n"),
        ("raise SystemExit", 0, ""),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
        ("import os; os._exit(3)", 3, ""),
        ("import atexit; atexit.register(print, 'at exit'); 1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        (
            "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()",
            0,
            "",
        ),
    ],
)
def test_ends_like_an_interpreter(starter, code, returned, said):
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    forked = run(starter, "-c", code)
    assert forked.returncode == plain.returncode == returned
    assert forked.stderr.endswith(said) and plain.stderr.endswith(said)
    assert forked.stdout == plain.stdout


def test_generators_differ(starter):
    code = "import random, uuid, numpy; print(random.random(), uuid.uuid4(), numpy.random.random())"
    first, second = (run(starter, "-c", code).stdout.split() for _ in range(2))
    assert len(first) == 3 and all(a != b for a, b in zip(first, second, strict=True))


CHILDREN = """
import multiprocessing, os, sys, time


def child(queue):
    queue.put(("numpy" in sys.modules, os.getppid(), os.environ["ONLY"]))
    sys.exit(5)


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(*queue.get(), os.getppid())
    process.join()
    print(process.exitcode)
    process = context.Process(target=time.sleep, args=(60,))
    process.start()
    time.sleep(0.5)
    process.terminate()
    process.join()
    print(process.exitcode)
"""


def test_titles_can_be_set(starter):
    code = "import os, setproctitle; setproctitle.setproctitle('a title'); print(open('/proc/self/cmdline').read())"
    done = run(starter, "-c", code, env={**os.environ, "ONLY": "this"})
    assert done.stdout.strip("\0\n") == "a title"


def test_torchs_openmp_comes_first(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/other.so")
    first, other = fork_server.one_openmp()["LD_PRELOAD"].split(":")
    assert other == "/other.so" and "libgomp" in first and "torch" in first and os.path.isfile(first)
    monkeypatch.delenv("LD_PRELOAD")
    assert fork_server.one_openmp() == {"LD_PRELOAD": first}


def test_the_nice_value_is_the_clients(starter):
    before = os.nice(0)
    command = ["nice", "-n", "5", *fork_server.command(starter.name), "-c", "import os; print(os.nice(0))"]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == min(19, before + 5)


def test_its_spawned_children_are_forked_as_well(starter, tmp_path):
    file = tmp_path / "children.py"
    file.write_text(CHILDREN)
    done = run(starter, file, env={**os.environ, "ONLY": "this"})
    assert done.returncode == 0, done.stderr
    server = psutil.Process(starter.pid).children()[0].pid
    assert done.stdout.splitlines() == [f"True {server} this {server}", "5", "-15"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ends_with_its_client(starter, number):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    client = subprocess.Popen([*fork_server.command(starter.name), "-c", code], stdout=subprocess.PIPE, text=True)
    process = psutil.Process(int(client.stdout.readline()))
    client.send_signal(number)
    assert process.wait(10) is None  # nobody's child here
    assert client.wait(10) == -number
    client.stdout.close()


def test_without_a_server_the_interpreter_starts(starter, tmp_path):
    command = fork_server.command("paec-fork-none")
    done = subprocess.run([*command, "-c", "print(1); exit(4)"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "1\n")
    assert done.stderr.startswith("no fork server (") and done.stderr.endswith("): starting the interpreter\n")


@pytest.mark.parametrize("end", ["close", "kill"])
def test_ends_with_the_process_that_started_it(end):
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    name = process.stdout.readline().strip()
    (server,) = psutil.Process(process.pid).children()
    process.stdin.close() if end == "close" else process.kill()
    process.wait(10)
    assert eventually(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    done = subprocess.run([*fork_server.command(name), "-c", ""], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("no fork server")
    process.stdin.close()
    process.stdout.close()
