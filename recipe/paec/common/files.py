"""Files that are either complete or absent, even if the process is killed while writing.

For content that is in memory. `data_prep.files.atomic_write` is for writers that need a path, and removes what a killed
writer left behind.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def replace_file(path: Path, content: str | bytes, sync: bool = False) -> None:
    """Write `content` to `path` so that a reader sees either the old file or the new one, never a part.

    Args:
        sync: whether it must be on disk when this returns, for files that must survive a power failure.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """`content` as JSON with sorted keys, by `replace_file`, on the disk when this returns."""
    replace_file(path, json.dumps(content, indent=1, sort_keys=True) + "\n", sync=True)
