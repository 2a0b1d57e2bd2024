"""Run directories as a training leaves them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from recipe.paec.grid.runs import GridRun
from recipe.paec.run import checkpoints


def exported(run: GridRun, **record) -> None:
    """The run's export of its last checkpoint, by its record alone."""
    (run.directory / "huggingface").mkdir(exist_ok=True)
    record = {"run": run.directory.name, "step": run.steps} | record
    (run.directory / "huggingface" / "paec_export.json").write_text(json.dumps(record))


def made_run(folder: Path, lines: list[dict], saved: int | None = None, config: str = "", steps: int = 2) -> GridRun:
    """A run directory as a training leaves it."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(config)
    if saved is not None:
        state = checkpoints.folder_of(folder / "checkpoints", saved)
        state.mkdir(parents=True)
        (state / "paec_state.json").write_text("{}")
    label, seed = re.fullmatch(r".*-(\w+)-seed(\d+)", folder.name).groups()
    return GridRun(label, int(seed), folder, steps, saves=True, exports=True)
