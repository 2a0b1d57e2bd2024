"""What trains the settings of a search: the laboratory (recipe.search.lab) or the pipeline (recipe.search.pipeline)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from paec_loss import MethodStack
from recipe.search.space import Params
from recipe.search.studies import Setting


@dataclass
class Ended:
    """How the runs of some settings have ended."""

    failures: dict[str, str] = field(default_factory=dict)
    """Label of a setting -> why one of its runs failed."""
    code: int | None = None
    """Exit code with which the search ends now: stopped by a signal, or its runs were submitted; None continues."""


class Runner(Protocol):
    """Trains settings, one run for each seed."""

    steps: int
    """Of every run."""
    following: str
    """The name of `next`'s file."""

    def stack(self, method: str) -> MethodStack:
        """The methods of a run with nothing set, the searched one first; UserError if it cannot be trained."""

    def metrics(self) -> Collection[str]:
        """What an objective may be made of."""

    def run(self, settings: Sequence[Setting], finished: Callable[[Setting], None]) -> Ended:
        """Train what is missing of the settings, and call `finished` for each that is complete."""

    def lines(self, setting: Setting, seed: int) -> list[dict[str, Any]]:
        """The metrics of a run, one mapping for each step."""

    def next(self, chosen: Mapping[str, Params], seeds: Sequence[int]) -> tuple[str, str]:
        """The name and the content of a file that trains the chosen setting of each method with other seeds."""


def spent_by(lines: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Steps, seconds and processor seconds of a run's steps, validations left out; None for what was not measured."""
    trained = [line for line in lines if "timing_s/step" in line]
    cpu = [line.get("timing_cpu_s/step") for line in trained]
    return {
        "steps": len(trained),
        "seconds": sum(line["timing_s/step"] for line in trained),
        "cpu_seconds": None if None in cpu else sum(cpu),
    }


def runs_of(folder: Path) -> Path:
    """Where the runs of a search go."""
    return folder / "runs"
