"""What tests ask about processes."""

from __future__ import annotations

import psutil


def gone(pid: int) -> bool:
    """Whether a process has ended; it may still wait to be reaped."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
