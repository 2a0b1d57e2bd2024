"""Trains the settings of a search in the pipeline, as a grid (recipe.paec.grid): here one by one, or as Slurm jobs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from paec_loss import MethodStack
from recipe.paec.config.methods import stack_of
from recipe.paec.grid.command import start
from recipe.paec.grid.prepare import prepare
from recipe.paec.grid.request import Grid, parse
from recipe.paec.grid.runs import GridRun
from recipe.search.objective import metrics_of
from recipe.search.request import Request, refuse_own
from recipe.search.runners import Ended, runs_of
from recipe.search.space import Params, overrides_of
from recipe.search.studies import Setting

OURS = {
    "METHODS": "methods",
    "SEEDS": "seeds",
    "EXPERIMENT": "experiment",
    "experiment": "the key experiment of the file",
    "GRID": "another name of the file",
    "SLURM": "slurm",
    "run.root": "--output",
}
"""Word of the grid, or configuration key, that the search sets itself -> what to use instead."""


class Pipeline:
    """The grid's runner as a runner of searches (`recipe.search.runners.Runner`).

    Args:
        request: the search.
        folder: of the search.

    Raises:
        UserError: a method or an override that cannot be, or methods that would not be validated alike.
    """

    following = "grid.sh"

    def __init__(self, request: Request, folder: Path):
        self._request, self._runs = request, runs_of(folder.resolve())
        refuse_own(request.overrides, OURS)
        grid = self._grid([(name, name, {}) for name in request.methods])
        prepare(grid)
        configs = [grid.configuration(entry, grid.seeds[0]) for entry in grid.entries]
        self._stacks = {entry.label: stack_of(config) for entry, config in zip(grid.entries, configs, strict=True)}
        self.steps = configs[0].trainer.total_training_steps
        self._samples = OmegaConf.select(configs[0], "actor_rollout_ref.rollout.val_kwargs.n")
        self._made: dict[str, GridRun] = {}

    def _grid(self, rows: Sequence[tuple[str, str, Params]]) -> Grid:
        """A grid with a row for each (label, method, setting)."""
        words = [":".join([f"{label}={method}", *overrides_of(params)]) for label, method, params in rows]
        name = re.sub(r"[^\w.,=+-]", "_", f"search-{self._request.name}", flags=re.ASCII)
        given = {
            "METHODS": " ".join(words),
            "SEEDS": " ".join(map(str, self._request.seeds)),
            "EXPERIMENT": self._request.experiment,
            "GRID": name,
            "SLURM": self._request.slurm,
        }
        place = f"run.root='{self._runs}'"
        return parse([*(f"{key}={value}" for key, value in given.items()), *self._request.overrides, place], {})

    def stack(self, method: str) -> MethodStack:
        """The methods of a run with nothing set, the searched one first."""
        return self._stacks[method]

    def metrics(self) -> list[str]:
        """What an objective may be made of."""
        return metrics_of(self._samples, ("avg", "maj", "pass"))

    def run(self, settings: Sequence[Setting], finished: Callable[[Setting], None]) -> Ended:
        """Train what is missing of the settings, and call `finished` for each that is complete."""
        grid = self._grid([(one.label, one.method, one.params) for one in settings])
        runs = prepare(grid)
        self._made |= {f"{run.label}-seed{run.seed}": run for run in runs}
        before = self._finish(settings, runs, finished)
        if len(before) == len(settings):
            return Ended()
        code = start(grid, runs)
        after = self._finish([one for one in settings if one.label not in before], runs, finished)
        if code > 1 or grid.words["SLURM"]:
            return Ended(code=code)
        log = runs[0].directory.parent / grid.name
        failed = [one.label for one in settings if one.label not in before | after]
        return Ended({label: f"{label}: not finished; the logs are in {log}" for label in failed})

    def _finish(
        self, settings: Sequence[Setting], runs: Sequence[GridRun], finished: Callable[[Setting], None]
    ) -> set[str]:
        """Labels of the settings whose runs are all done."""
        done = [one for one in settings if all(run.done() for run in runs if run.label == one.label)]
        for setting in done:
            finished(setting)
        return {setting.label for setting in done}

    def lines(self, setting: Setting, seed: int) -> list[dict[str, Any]]:
        """The metrics of a run, one mapping for each step."""
        return self._made[f"{setting.label}-seed{seed}"].records()

    def next(self, chosen: Mapping[str, Params], seeds: Sequence[int]) -> tuple[str, str]:
        """The name and the content of a script: a grid of the chosen setting of each method with other seeds."""
        words = [":".join([f"{name}={name}", *overrides_of(params)]) for name, params in chosen.items()]
        given = [f"METHODS={' '.join(words)}", f"SEEDS={' '.join(map(str, seeds))}"]
        command = ["paec", "grid", *given, f"EXPERIMENT={self._request.experiment}", *self._request.overrides]
        head = (
            f"# The settings that the search {self._request.name} has chosen, as a grid.\n"
            f"# The search itself trained seeds {', '.join(map(str, self._request.seeds))}; these are others.\n"
        )
        return self.following, head + shlex.join(command) + "\n"
