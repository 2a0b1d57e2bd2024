"""What commands print: progress, errors, sizes."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence

from recipe.paec.common import secrets

GIB = 2**30


def gib(size: float) -> str:
    """Bytes as text."""
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.0f} MiB"


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system without flock."""
NOT_OURS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR),
    *NO_LOCKS,
)
"""File-system errors that are not bugs: a full disk, a folder that is not writable."""


def say(text: str) -> None:
    """Print and flush, so that progress is visible."""
    print(text, flush=True)


def asked_for_help(arguments: Sequence[str], usage: str) -> bool:
    """Whether the command line asks for help; prints `usage` if it does."""
    if not {"--help", "-h"} & set(arguments):
        return False
    say(usage.strip())
    return True


def parsed(parser: argparse.ArgumentParser, usage: str, arguments: Sequence[str] | None) -> argparse.Namespace | None:
    """The options of a command line, by default this process's; None if it asks for help, and `usage` is printed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return None if asked_for_help(given, usage) else parser.parse_args(given)


def complain(errors: list[str]) -> int:
    """Print errors; returns the exit code."""
    print(secrets.hide("\n".join(f"error: {problem}" for problem in errors)), file=sys.stderr, flush=True)
    return 2


def complain_of_files(error: OSError, remedy: str, place: object = None) -> int:
    """Print a file-system error that is not a bug, with its remedy; returns the exit code.

    `place` is named if the error names none.

    Raises:
        OSError: any other error, as it came.
    """
    if error.errno not in NOT_OURS:
        raise error
    return complain([f"{error.filename or place}: {error.strerror}: {remedy}"])
