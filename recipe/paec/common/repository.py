"""Where this checkout and its configuration files are, and its commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIGS = REPOSITORY / "configs"


def git_commit() -> str | None:
    """Commit of this checkout with `-dirty` when it has changes, None outside a checkout."""
    result = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None
