"""How every command ends: its exit code, that of a reader that has gone away, or that of Ctrl-C."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress

INTERRUPTED, NO_READER = 130, 141
"""Exit codes of a command that SIGINT or SIGPIPE ends."""


def ended(main: Callable[[], int | None]) -> int:
    """Call a command's `main`; returns its exit code.

    `paec report ... | head` ends without a word when head has what it wants, and Ctrl-C with one word, unless the
    command has more to say about it.
    """
    try:
        try:
            return main() or 0
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        closed = _without_reader()
        if not closed:
            raise
        for descriptor in closed:  # what is still to be written, at the interpreter's end too, goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        return NO_READER
    except KeyboardInterrupt:
        with suppress(OSError):
            print("interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED


def _without_reader() -> list[int]:
    """Of stdout and stderr, those that are pipes whose other end is closed."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)  # errors are always told
    return [descriptor for descriptor, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]
