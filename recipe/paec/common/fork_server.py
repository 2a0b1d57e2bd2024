"""Forks Python processes from one that has imported everything, for which each would need ten seconds of its own.

`start` forks the server off a process that has imported torch and vLLM and has no thread yet; `fork_client` is the
command that has a process forked by it. Ray starts its workers by that command (`py_executable` of a runtime
environment), and these their own children (multiprocessing's spawn, which is how vLLM starts its engine).
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import runpy
import secrets
import shlex
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing import spawn
from pathlib import Path
from typing import Any, NoReturn

from recipe.paec.common import fork_client
from recipe.paec.common.fork_client import HEADER, STATUS, address
from recipe.paec.common.process_tree import die_with_parent

MOST_FILES = 200
"""Open files that a client can pass on."""
TIMEOUT = 10.0
"""Seconds within which a client must have sent its request."""
F_SETSIG = 10
"""fcntl(2): the signal that O_ASYNC sends; not in the module `fcntl`."""


def command(name: str) -> list[str]:
    """What to put in front of Python's arguments to have a process forked by the server `name`."""
    return [sys.executable, "-IS", fork_client.__file__, name]


VLLM_ON_CPU = (
    *("torch", "torch._dynamo", "transformers", "vllm.v1.engine.async_llm", "vllm.v1.engine.core"),
    *("vllm.v1.executor.uniproc_executor", "vllm.v1.worker.cpu_worker"),
)
"""What vLLM and its engine import."""


def forks(cluster: Any) -> bool:
    """Whether Ray's workers are forked, by the Hydra group `cluster`: only those of a Ray that is started here."""
    return cluster.fork_workers and cluster.ray_address is None


def import_without_ray(libraries: Sequence[str]) -> None:
    """Import `libraries`, but not Ray: its own library reads the environment when it is loaded, with a worker's ids."""
    if "ray" in sys.modules:
        raise RuntimeError("the fork server must be started before Ray is imported")
    sys.modules["ray"] = None  # type: ignore[assignment]
    try:
        for name in libraries:
            importlib.import_module(name)
    finally:
        del sys.modules["ray"]
    # The one of them that looks for Ray, and shall find it when it is used.
    if (looked := sys.modules.pop("vllm.v1.executor.ray_utils", None)) is not None:
        package = sys.modules["vllm.v1.executor"]
        if getattr(package, "ray_utils", None) is looked:
            del package.ray_utils


def python_of_ray(libraries: Sequence[str]) -> str:
    """Start a server that has imported `libraries`; the `py_executable` of Ray's runtime environment."""
    import_without_ray(libraries)
    return shlex.join(command(start()))


def one_openmp() -> dict[str, str]:
    """Environment in which a process that will fork others must be started: LD_PRELOAD with torch's OpenMP library.

    vLLM starts its engine on a CPU like this. Without it, in a process that has imported torch and vLLM one after the
    other, the threads of that engine wait for work by spinning, and a rollout takes nearly twice as long.
    """
    torch = Path(importlib.util.find_spec("torch").origin).parent
    found = sorted([*torch.parent.glob("torch.libs/libgomp*.so*"), *torch.glob("lib/libgomp*.so*")])
    return {"LD_PRELOAD": ":".join(filter(None, [*map(str, found[:1]), os.environ.get("LD_PRELOAD")]))}


def start() -> str:
    """Fork the server off this process, and return its name. It ends with this process.

    Call it before anything has started a thread: a forked process has only the thread that forks.
    """
    name = f"paec-fork-{secrets.token_hex(16)}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address(name))
    listener.listen(64)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # no collection touches, and so copies, the pages that all share
    parent = os.getpid()
    if os.fork():
        gc.unfreeze()
        listener.close()
        return name
    try:
        die_with_parent()
        if os.getppid() == parent:
            _serve(name, listener)
    finally:
        os._exit(1)


def _serve(name: str, listener: socket.socket) -> None:
    clients: dict[int, socket.socket] = {}

    def reap(*_: object) -> None:
        for pid, status in _ended():
            with clients.pop(pid) as connection:
                try:
                    connection.send(STATUS.pack(status))
                except OSError:  # the client was killed
                    pass

    signal.signal(signal.SIGCHLD, reap)
    while True:
        connection, _ = listener.accept()
        received = _receive(connection)
        if received is None:
            connection.close()
            continue
        request, files = received
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        if (pid := os.fork()) == 0:
            listener.close()
            for other in clients.values():
                other.close()
            _become(name, request, files, connection)
        clients[pid] = connection
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for number in files:
            os.close(number)


def _ended() -> list[tuple[int, int]]:
    """(pid, status) of the children that have ended."""
    found = []
    try:
        while (pair := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(pair)
    except ChildProcessError:
        pass
    return found


def _receive(connection: socket.socket) -> tuple[dict, list[int]] | None:
    """A request and its open files; None for one that is cut off, or another user's."""
    user = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if user != os.getuid():
        return None
    connection.settimeout(TIMEOUT)
    files: list[int] = []
    try:
        header, files, _, _ = socket.recv_fds(connection, HEADER.size, MOST_FILES)
        size, message = HEADER.unpack(header)[0], b""
        while len(message) < size:
            if not (piece := connection.recv(size - len(message))):
                raise EOFError
            message += piece
    except (OSError, EOFError, struct.error):
        for number in files:
            os.close(number)
        return None
    connection.settimeout(None)
    return json.loads(message), files


def _become(name: str, request: dict, files: list[int], connection: socket.socket) -> None:
    """Turn this process, just forked, into the requested one; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        _take_files(files, request["files"], connection)
        fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(connection, F_SETSIG, signal.SIGTERM)  # if the client is terminated or killed
        fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
        _take_environment(request["environment"])
        os.chdir(request["folder"])
        os.nice(max(0, request["nice"] - os.nice(0)))
        _reseed()
        spawn_by(name)
        run(request["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def leave(code: int) -> NoReturn:
    """End this process as an interpreter ends, but without taking its heap apart: after vLLM, that takes 8 s."""
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _take_files(files: list[int], numbers: list[int], connection: socket.socket) -> None:
    """Give the received files the numbers that they had in the client."""
    above = max([*numbers, *files, connection.fileno()]) + 1
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, above) for number in files]
    ours = connection.detach()
    kept = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, above)
    for number in {*files, ours}:
        os.close(number)
    connection.__init__(fileno=kept)
    for source, number in zip(moved, numbers, strict=True):
        os.dup2(source, number)
        os.close(source)


def _take_environment(environment: dict[str, str]) -> None:
    """Change what differs, and nothing else: who changes a process's title looks for it beside the first variables."""
    for key in os.environ.keys() - environment.keys():
        del os.environ[key]
    for key, value in environment.items():
        if os.environ.get(key) != value:
            os.environ[key] = value


def _reseed() -> None:
    """Let the generators that are seeded at random differ from those of other forks (`random` does it by itself)."""
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if (torch := sys.modules.get("torch")) is not None and threads.isdecimal():
        torch.set_num_threads(int(threads))  # which an interpreter would read at its start


def spawn_by(name: str) -> None:
    """Have this process's multiprocessing start children of the method "spawn" by the server `name`."""
    plain = getattr(spawn.get_command_line, "plain", spawn.get_command_line)

    def command_line(**keywords):
        return [*command(name), *plain(**keywords)[1:]]

    command_line.plain = plain
    spawn.get_command_line = command_line


def run(arguments: list[str]) -> None:
    """What the interpreter does with `FILE ARGUMENT...`, `-m MODULE ARGUMENT...` or `-c CODE ARGUMENT...`."""
    first, *rest = arguments
    while first.startswith("-") and first not in ("-c", "-m"):
        first, *rest = rest[1:] if first in ("-X", "-W") else rest  # the interpreter's options; those of ours hold
    if first == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        main = type(sys)("__main__")
        main.__builtins__ = __builtins__
        sys.modules["__main__"] = main
        exec(compile(code, "<string>", "exec"), main.__dict__)
    elif first == "-m":
        module, *rest = rest
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")
