"""The recipe installed from its wheel into an environment of its own, without a download."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from recipe.paec.common.repository import REPOSITORY

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def tracked_files(target: Path) -> Path:
    """A copy of the files of this checkout that git knows, and of no others; returns `target`."""
    listed = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, target / name)
    return target


def wheel(source: Path, target: Path) -> Path:
    """Build the wheel of the project in `source` into the folder `target`; returns the wheel."""
    build = ["wheel", str(source), "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(target)]
    subprocess.run([*PIP, *build], check=True, cwd=target.parent, env=clean_environment())
    (made,) = target.glob("*.whl")
    return made


def environment(target: Path, built: Path) -> Path:
    """A virtual environment with this wheel and, by a .pth file, all packages of this one; returns its `bin`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(target)], check=True)
    python = target / "bin" / "python"
    install = ["--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(built)]
    # In a folder, and with a path, where pip does not find the checkout's own metadata and takes it for installed.
    subprocess.run([*PIP, *install], check=True, cwd=target, env=clean_environment())
    site = target / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (site / "stack.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python.parent


def clean_environment() -> dict[str, str]:
    """This process's variables without those that would let the checkout be found."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
