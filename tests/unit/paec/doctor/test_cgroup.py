"""The memory that the control group leaves."""

from __future__ import annotations

from pathlib import Path

from recipe.paec.doctor import cgroup


def test_memory_of_the_control_group(tmp_path, monkeypatch):
    """The least of the limits from this process's group up to the root, in the layout that this machine has."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    (path, root) = next(
        (path.lstrip("/"), tmp_path / "memory" if controller else tmp_path)
        for _, controller, path in lines
        if controller in ("", "memory")
    )
    names = ("limit", "used") * 2
    monkeypatch.setattr(cgroup, "CGROUP", tmp_path)
    assert cgroup.cgroup_room("memory", *names) == float("inf")
    (root / path).mkdir(parents=True, exist_ok=True)
    for folder, limit, cache in ((root / path, "1000", 30), (root, "5000", 0)):
        (folder / "limit").write_text(f"{limit}\n")
        (folder / "used").write_text("400\n")
        (folder / "memory.stat").write_text(f"anon 7\ninactive_file {cache}\n")
    expected = 1000 - 400 + 30 if path else 5000 - 400
    assert cgroup.cgroup_room("memory", *names) == expected
    (root / path / "limit").write_text("max\n")
    assert cgroup.cgroup_room("memory", *names) == (5000 - 400 if path else float("inf"))
