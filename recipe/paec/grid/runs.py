"""One run of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.paec.export.huggingface import holds
from recipe.paec.run import checkpoints


@dataclass(frozen=True)
class GridRun:
    """One run of a grid, existing or planned."""

    label: str
    """Label of its method, the row of the table."""
    seed: int
    directory: Path
    steps: int
    """Step at which it ends."""
    saves: bool
    """Whether it saves checkpoints; if so, also one at its end."""
    exports: bool
    """Whether it exports the last checkpoint to huggingface/."""

    def records(self) -> list[dict[str, Any]]:
        """Its lines of metrics.jsonl."""
        return read_metrics(self.directory / METRICS_FILE)

    def step(self) -> int | None:
        """The last step it has recorded, None before the first line."""
        return max((record["step"] for record in self.records()), default=None)

    def last(self) -> Path:
        """Folder of the checkpoint of its last step, whether it exists or not."""
        return checkpoints.folder_of(self.directory / "checkpoints", self.steps)

    def finished(self) -> bool:
        """Whether its last step is recorded, and saved if it saves."""
        return self.step() == self.steps and (not self.saves or checkpoints.is_complete(self.last()))

    def done(self) -> bool:
        """Whether nothing is left to do: it is finished, and exported if it exports."""
        if not self.finished():
            return False
        return not (self.saves and self.exports) or holds(self.directory / "huggingface", self.last(), self.steps)
