"""Where this recipe and its configuration files are, and its commit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib.metadata import distribution
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
"""The checkout; where the recipe was installed from a wheel, the folder of its packages."""
IS_CHECKOUT = (REPOSITORY / "setup.py").is_file()
"""Whether there is a checkout: `launch/` and `benchmarks/` are in no wheel."""
OF_CHECKOUT = "" if IS_CHECKOUT else " of a checkout of the repository"
"""To be added to the name of a script in an error."""
CONFIGS = REPOSITORY / "configs"


COMMIT = "PAEC_COMMIT"
"""Variable with the commit of files that were copied without their history, as into an image."""


def git_commit() -> str | None:
    """Commit of this checkout with `-dirty` when it has changes, or None where it is not known.

    Of files without a history it is the variable `PAEC_COMMIT`, and of an installed package what pip recorded: git is
    not asked there, because the package's folder may be inside a checkout of something else.
    """
    if not IS_CHECKOUT:
        origin = json.loads(distribution("paec").read_text("direct_url.json") or "{}")  # PEP 610
        return origin.get("vcs_info", {}).get("commit_id")
    said = ""
    if shutil.which("git") is not None:
        said = subprocess.run(
            ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    return said or os.environ.get(COMMIT) or None
