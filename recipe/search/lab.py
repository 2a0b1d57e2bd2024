"""Trains the settings of a search in the laboratory, a process for each run, several at a time."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paec_loss import MethodStack
from recipe.lab.runs import steps_done
from recipe.lab.settings import Settings, settings_of
from recipe.paec.common.child import StopSignals
from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.process_tree import ProcessTree
from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.search.objective import metrics_of
from recipe.search.request import Request, refuse_own
from recipe.search.runners import Ended, runs_of
from recipe.search.space import Params, overrides_of
from recipe.search.studies import Setting

COMMAND = [sys.executable, "-m", "recipe.lab"]
"""The command that trains one run."""
LOG = "lab.log"
OURS = {"name": "--output", "output": "--output"}
"""Key that the search sets itself -> what to use instead."""
POLL = 0.2
"""Seconds between two looks at the runs."""


@dataclass
class Process:
    """A run that trains."""

    setting: Setting
    folder: Path
    tree: ProcessTree


class Lab:
    """The laboratory as a runner of searches (`recipe.search.runners.Runner`).

    Args:
        request: the search.
        folder: of the search.
        processes: runs at a time, one thread each.

    Raises:
        UserError: an override of all runs that cannot be.
    """

    following = "jobs.yaml"

    def __init__(self, request: Request, folder: Path, processes: int):
        self._request, self._runs, self._processes = request, runs_of(folder), processes
        refuse_own(request.overrides, OURS)
        first = self._settings(next(iter(request.methods)))
        if first.held_out:
            raise UserError(
                "all: held_out=true: test problems must not influence the choice of settings: leave it out, and set it "
                "for the main runs"
            )
        if first.test_every < 1:
            raise UserError(f"all: test_every={first.test_every}: a search needs validations: it must be >= 1")
        self.steps, self._samples = first.steps, first.test_samples

    def _settings(self, method: str, *overrides: str) -> Settings:
        try:
            return settings_of([*self._request.overrides, f"method={method}", *overrides])
        except UserError as error:
            raise UserError(*(f"methods.{method}: {problem}" for problem in error.errors)) from None

    def stack(self, method: str) -> MethodStack:
        """The methods of a run with nothing set, the searched one first; UserError if it cannot be trained."""
        return self._settings(method).stack

    def metrics(self) -> list[str]:
        """What an objective may be made of."""
        return metrics_of(self._samples, ("avg", "pass", "distinct"))

    def _overrides(self, setting: Setting, seed: int) -> list[str]:
        label = self.folder(setting, seed).name
        place = [f"seed={seed}", f'name="{label}"', f'output="{self.folder(setting, seed)}"']
        own = [f"method={setting.method}", *overrides_of(setting.params)]
        return [*self._request.overrides, *own, *place]

    def folder(self, setting: Setting, seed: int) -> Path:
        """The folder of a run."""
        return self._runs / f"{setting.label}-seed{seed}"

    def run(self, settings: Sequence[Setting], finished: Callable[[Setting], None]) -> Ended:
        """Train what is missing of the settings, and call `finished` for each that is complete."""
        for setting in settings:  # whatever is wrong with one is known before the first begins
            self._settings(setting.method, *overrides_of(setting.params))
        waiting = deque((setting, seed) for setting in settings for seed in self._request.seeds)
        left = {setting.label: len(self._request.seeds) for setting in settings}
        running: list[Process] = []
        ended = Ended()

        def over(setting: Setting, failure: str | None) -> None:
            left[setting.label] -= 1
            if failure is not None:
                ended.failures.setdefault(setting.label, failure)
                say(f"{failure}; continuing with the others")
            elif not left[setting.label] and setting.label not in ended.failures:
                finished(setting)

        def stop(number: int, _: object) -> None:
            ended.code = ended.code or 128 + number

        with StopSignals(stop):
            try:
                while (waiting or running) and ended.code is None:
                    while waiting and len(running) < self._processes:
                        setting, seed = waiting.popleft()
                        if steps_done(self.folder(setting, seed)) >= self.steps:
                            over(setting, None)
                        else:
                            running.append(self._start(setting, seed))
                    for one in [one for one in running if one.tree.process.poll() is not None]:
                        running.remove(one)
                        one.tree.end()
                        over(one.setting, self._failure(one))
                    time.sleep(POLL)
            finally:
                for one in running:
                    one.tree.end()
        return ended

    def _start(self, setting: Setting, seed: int) -> Process:
        folder = self.folder(setting, seed)
        folder.mkdir(parents=True, exist_ok=True)
        say(f"{folder.name}: {' '.join(overrides_of(setting.params)) or setting.method}")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        tree = ProcessTree([*COMMAND, *self._overrides(setting, seed)], folder / LOG, environment)
        return Process(setting, folder, tree)

    def _failure(self, one: Process) -> str | None:
        code = one.tree.process.returncode
        if code == 0 and steps_done(one.folder) >= self.steps:
            return None
        return f"{one.folder.name}: exit code {code}; {one.folder / LOG} says why"

    def lines(self, setting: Setting, seed: int) -> list[dict[str, Any]]:
        """The metrics of a run, one mapping for each step."""
        return read_metrics(self.folder(setting, seed) / METRICS_FILE)

    def next(self, chosen: Mapping[str, Params], seeds: Sequence[int]) -> tuple[str, str]:
        """The name and the content of a file of jobs: the chosen setting of each method with other seeds."""
        jobs = {name: [f"method={name}", *overrides_of(params)] for name, params in chosen.items()}
        content = {"all": list(self._request.overrides), "seeds": list(seeds), "jobs": jobs}
        head = (
            f"# The settings that the search {self._request.name} has chosen: paec lab sweep FILE\n"
            f"# The search itself trained seeds {', '.join(map(str, self._request.seeds))}; these are others.\n"
        )
        return self.following, head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=10_000)
