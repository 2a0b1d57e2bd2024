"""Searches whose runs are a formula: everything of them is real, Optuna and its journal too, but the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from paec_loss import MethodStack
from paec_loss.methods import METHODS
from recipe.search.loop import search, spaces_of
from recipe.search.request import Request, request_of
from recipe.search.runners import Ended
from recipe.search.space import Params
from recipe.search.studies import Studies

NEEDS_OPTUNA = "needs optuna: pip install -e '.[search]'"
FILE: dict[str, Any] = {
    "seeds": [11, 12],
    "trials": 3,
    "sampler": "random",
    "objective": {"take": "last", "of": "avg@4"},
    "methods": {
        "none": {},
        "paec": {"rho_min": {"low": 0.1, "high": 0.9}},
        "clip_cov": {"ratio": [0.0002, 0.002, 0.02]},
    },
}


def request(**changes: Any) -> Request:
    """FILE with some keys changed; without a key where the change is None."""
    return request_of({key: value for key, value in {**FILE, **changes}.items() if value is not None}, "made")


class Killed(BaseException):
    """What a kill does to the process."""


def first_knob(method: str, params: Params) -> float:
    """The value of the first knob, 0 without one."""
    return float(next(iter(params.values()), 0.0))


class Made:
    """A runner whose runs give `value(method, params) + seed / 1000` at once.

    Args:
        dies_at: the process is killed in the run of this number, counted from 0.
        fails: labels of settings whose runs fail.
    """

    steps = 4
    following = "next.txt"

    def __init__(self, value: Callable[[str, Params], float] = first_knob, dies_at: int = -1, fails: tuple = ()):
        self.value, self.dies_at, self.fails = value, dies_at, fails
        self.ran: list[str] = []

    def stack(self, method: str) -> MethodStack:
        return MethodStack([METHODS[method]()])

    def metrics(self) -> list[str]:
        return ["avg@4", "pass@1", "pass@4"]

    def run(self, settings, finished) -> Ended:
        ended = Ended()
        for setting in settings:
            if len(self.ran) == self.dies_at:
                raise Killed
            self.ran.append(setting.label)
            if setting.label in self.fails:
                ended.failures[setting.label] = f"{setting.label}: no room on the disk"
            else:
                finished(setting)
        return ended

    def lines(self, setting, seed: int) -> list[dict[str, Any]]:
        value = self.value(setting.method, setting.params) + seed / 1000
        trained = [{"step": step, "timing_s/step": 2.0, "timing_cpu_s/step": 1.5} for step in range(1, self.steps + 1)]
        trained[-1]["val/x/avg@4"] = value
        return [{"step": 0, "val/x/avg@4": 0.1}, *trained]

    def next(self, chosen: Mapping[str, Params], seeds) -> tuple[str, str]:
        return "next.txt", f"{chosen} {seeds}\n"


def searched(folder: Path, asked: Request, runner: Made) -> Studies:
    """A search in a folder, from its beginning or resumed, to its end or its kill."""
    pytest.importorskip("optuna", reason=NEEDS_OPTUNA)
    folder.mkdir(exist_ok=True)
    studies = Studies(folder, asked, spaces_of(asked, runner))
    search(asked, studies, runner, lambda failures: None)
    return studies


def tried(studies: Studies, asked: Request) -> dict[str, list[Params]]:
    """Method -> its settings."""
    return {name: [one.params for one in studies.settings(name)] for name in asked.methods}
