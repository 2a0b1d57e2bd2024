"""Commands as they are typed, and model folders that are changed or split."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from recipe.paec.common import model_files
from recipe.paec.common.repository import REPOSITORY


def command(tiny: Path, root: Path, *overrides: str, before=None, module="doctor", **env: str):
    return subprocess.run(
        [sys.executable, "-m", f"recipe.paec.{module}", f"run.root={root}", *overrides],
        env={**os.environ, "PAEC_TINY_DIR": str(tiny), **env},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        preexec_fn=before,
        timeout=300,
        check=False,
    )


def sharded(model: Path) -> dict[str, str]:
    """The model's weights in two files with an index; the index."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    index = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, model / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (model / "model.safetensors").unlink()
    (model / model_files.INDEX).write_text(json.dumps({"weight_map": index}))
    return index
