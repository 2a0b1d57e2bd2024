"""Python, forked instead of started: `python -IS fork_client.py NAME ARGUMENT...` instead of `python ARGUMENT...`

Sends its arguments, environment, folder and open files to the fork server NAME (`fork_server`), and lives as long as
the process that the server forks for it, so that whoever started it sees a child like any other. Where there is no
server it becomes the ordinary interpreter, which only takes longer.

A script that imports nothing but what is below, and so starts in a moment.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import sys

HEADER, STATUS = struct.Struct("!I"), struct.Struct("!i")
"""What the server reads before a request, its length; and what it answers, the status of the process that has ended."""


def client(name: str, arguments: list[str]) -> int:
    """Have `arguments` run by the server, and wait; the exit code, or death by the signal that ended it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    files = [int(number) for number in os.listdir("/proc/self/fd")]
    files = [number for number in files if number != connection.fileno() and _is_open(number)]
    request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd(), "files": files}
    request["nice"] = os.nice(0)
    try:
        connection.connect(address(name))
        message = json.dumps(request).encode()
        socket.send_fds(connection, [HEADER.pack(len(message))], files)
        connection.sendall(message)
    except OSError as error:
        print(f"no fork server ({error}): starting the interpreter", file=sys.stderr, flush=True)
        os.execv(sys.executable, [sys.executable, *arguments])
    for number in files:
        os.close(number)  # whoever waits for one to be closed waits for the process, not for us
    answer = connection.recv(STATUS.size)
    if len(answer) < STATUS.size:
        return 1  # the server was killed
    code = os.waitstatus_to_exitcode(STATUS.unpack(answer)[0])
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def address(name: str) -> str:
    """The socket of the server `name`: in no folder, so that there is nothing to clean up."""
    return f"\0{name}"


def _is_open(number: int) -> bool:
    """Whether a file is open, and would be in a program that is started from here."""
    try:
        return not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(client(sys.argv[1], sys.argv[2:]))
