"""A program in a terminal of its own: what a person would see."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "setup.py").is_file())


def in_terminal(
    script: str,
    *arguments: str,
    rows: int = 24,
    columns: int = 100,
    term: str = "xterm",
    seen: Callable[[str, subprocess.Popen], None] = lambda text, process: None,
) -> tuple[int, str]:
    """Exit code and output of a Python script whose input and output are a terminal; `seen` gets the output so far."""
    terminal, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env={**os.environ, "TERM": term},
        start_new_session=True,
    )
    os.close(inside)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the child has closed its side
            break
        seen(shown.decode("utf-8", errors="replace"), child)
    os.close(terminal)
    return child.wait(60), shown.decode("utf-8")
