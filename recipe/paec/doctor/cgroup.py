"""Limits of this process's control group."""

from __future__ import annotations

import math
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cgroup_room(controller: str, limit_v2: str, used_v2: str, limit_v1: str, used_v1: str) -> float:
    """The smallest limit minus usage over this process's control group and those above it; inf without a limit."""
    room = math.inf
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", controller):
            continue
        root, names = (CGROUP / controller, (limit_v1, used_v1)) if controllers else (CGROUP, (limit_v2, used_v2))
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            limit, used = (_number(group / name) for name in names)
            if limit is not None and used is not None:
                room = min(room, limit - used + (_file_cache(group) if controller == "memory" else 0))
    return room


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None  # no such limit here
    return int(text) if text.isdigit() else None


def _file_cache(group: Path) -> int:
    """Bytes of a control group that the kernel frees when they are needed."""
    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    counts = {name: int(value) for name, value in map(str.split, lines)}
    return counts.get("total_inactive_file", counts.get("inactive_file", 0))
