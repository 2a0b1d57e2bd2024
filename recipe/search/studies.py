"""The settings of a search in Optuna's journal: one study for each method, which survives a kill at any moment.

The n-th setting of a method is a function of the sampler's seed, the method, n and, for tpe, of what the settings
before it gave: how many runs train at a time, and interruptions, change nothing. Setting 0 is the default.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.paec.common.errors import UserError
from recipe.paec.common.records import first_difference
from recipe.paec.common.seeds import response_seed
from recipe.search.request import Request
from recipe.search.space import Choices, Params, Range, Space

JOURNAL = "journal.log"
REQUEST = "request"
"""Attribute of a study: what it searches, so that a changed file is noticed."""
ATTEMPTS = 10
"""Draws that repeat an earlier setting before one that was not tried yet is taken at random."""


@dataclass(frozen=True)
class Setting:
    """One setting of a method."""

    method: str
    place: int
    """0 for the default, then 1, 2, ..."""
    params: Params
    number: int
    """Of Optuna's trial."""
    result: Mapping[str, Any] | None
    """{values: {seed: objective}, steps, seconds, cpu_seconds} of its runs together; None if it is not finished."""

    @property
    def label(self) -> str:
        """Its name among the runs: paec-0."""
        return f"{self.method}-{self.place}"

    @property
    def mean(self) -> float | None:
        """The objective over its seeds; None if it is not finished."""
        if self.result is None:
            return None
        values = self.result["values"].values()
        return sum(values) / len(values)


def optuna_module() -> Any:
    """Optuna, which is not needed for anything else; UserError with the remedy if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "paec search needs Optuna, which is not installed: pip install -e '.[search]' in the repository"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Studies:
    """The settings of all methods. Only one process may use a folder at a time.

    Args:
        folder: of the search; the journal is created in it.
        request: the file of the search.
        spaces: method -> its settings.

    Raises:
        UserError: Optuna is not installed, or the folder has another search.
    """

    def __init__(self, folder: Path, request: Request, spaces: Mapping[str, Space]):
        self._optuna, self._request, self._spaces = optuna_module(), request, spaces
        journal = folder / JOURNAL
        with _quiet():
            if journal.exists():
                drop_torn_line(journal)
            parts = self._optuna.storages.journal
            backend = parts.JournalFileBackend(str(journal), lock_obj=parts.JournalFileOpenLock(str(journal)))
            self._storage = self._optuna.storages.JournalStorage(backend)
            names = self._optuna.get_all_study_names(storage=self._storage)
            for name in names:
                self._check_same(folder, name)
            self._studies = {name: self._opened(name, name in names) for name in spaces}
        for name in spaces:
            self._clean(name)

    def _written(self, name: str) -> dict[str, Any]:
        own = {f"methods.{name}.{field}": knob for field, knob in self._spaces[name].written().items()}
        return {**self._request.written(), **own}

    def _check_same(self, folder: Path, name: str) -> None:
        if name not in self._spaces:
            raise UserError(
                f"{folder} has also searched {name}, which the file no longer names: put it back, or choose another "
                "--output"
            )
        recorded = self._optuna.load_study(study_name=name, storage=self._storage).user_attrs.get(REQUEST)
        if recorded is None:  # killed before anything was tried
            return
        if (difference := first_difference(recorded, self._written(name))) is not None:
            key, there, here = difference
            raise UserError(
                f"{folder} holds another search: its {key} is {there}, but this file has {here}: choose another "
                "--output, or restore the file"
            )

    def _opened(self, name: str, exists: bool) -> Any:
        if exists:
            study = self._optuna.load_study(study_name=name, storage=self._storage)
        else:
            study = self._optuna.create_study(study_name=name, storage=self._storage, direction="maximize")
        if REQUEST not in study.user_attrs:
            study.set_user_attr(REQUEST, self._written(name))
        return study

    def _clean(self, name: str) -> None:
        """Drop a trial that was being drawn when the process was killed; it is drawn again, and is the same."""
        study, states = self._studies[name], self._optuna.trial.TrialState
        seen: list[Params] = []
        for trial in study.get_trials(deepcopy=False):
            if trial.state == states.RUNNING and (trial.params.keys() != self._spaces[name].knobs.keys()):
                study.tell(trial.number, state=states.FAIL)
            elif trial.state == states.RUNNING and trial.params in seen:
                study.tell(trial.number, state=states.FAIL)
            elif trial.state in (states.RUNNING, states.COMPLETE):
                seen.append(trial.params)

    def settings(self, name: str) -> list[Setting]:
        """A method's settings so far, the default first."""
        study, states = self._studies[name], self._optuna.trial.TrialState
        counted = [t for t in study.get_trials(deepcopy=False) if t.state in (states.RUNNING, states.COMPLETE)]
        results = study.user_attrs
        found = []
        for place, trial in enumerate(counted):
            done = trial.state == states.COMPLETE
            params = {field: trial.params[field] for field in self._spaces[name].knobs}
            result = results[f"result-{trial.number}"] if done else None
            found.append(Setting(name, place, params, trial.number, result))
        return found

    def due(self, failed: Collection[str] = ()) -> list[Setting]:
        """The settings to be run next, of all methods: those begun, and new ones that can be drawn now; by place.

        With tpe a setting is drawn when those before it are finished; otherwise all are drawn at once.

        Args:
            failed: labels of settings that are not tried again now.
        """
        found: list[Setting] = []
        for name in self._spaces:
            while self._may_draw(name):
                self._draw(name)
            found += [one for one in self.settings(name) if one.result is None and one.label not in failed]
        return sorted(found, key=lambda setting: setting.place)

    def _may_draw(self, name: str) -> bool:
        settings, sampler = self.settings(name), self._request.sampler
        if len(settings) >= self._request.settings(name):
            return False
        waits = sampler.name == "tpe" and len(settings) >= sampler.startup
        return not waits or all(one.result is not None for one in settings)

    def _draw(self, name: str) -> None:
        """Begin the next setting, one that was not tried before."""
        study, space = self._studies[name], self._spaces[name]
        tried = [one.params for one in self.settings(name)]
        place = len(tried)
        if place == 0:
            self._begin(name, space.default)
        elif self._request.sampler.name == "grid":
            self._begin(name, space.grid()[place])
        else:
            for attempt in range(ATTEMPTS):
                seed = response_seed(self._request.sampler.seed, "search", name, place, attempt)
                with _quiet():
                    study.sampler = self._sampler(seed)
                    trial = study.ask(self._distributions(name))
                if trial.params not in tried:
                    return
                study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            seed = response_seed(self._request.sampler.seed, "search", name, place)
            self._begin(name, _untried(space, tried, seed))

    def _begin(self, name: str, params: Params) -> None:
        """Begin a given setting."""
        study = self._studies[name]
        if not study.get_trials(deepcopy=False, states=[self._optuna.trial.TrialState.WAITING]):
            study.enqueue_trial(params)
        with _quiet():
            study.ask(self._distributions(name))

    def _sampler(self, seed: int) -> Any:
        samplers = self._optuna.samplers
        if self._request.sampler.name == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=self._request.sampler.startup)
        return samplers.RandomSampler(seed=seed)

    def _distributions(self, name: str) -> dict[str, Any]:
        parts = self._optuna.distributions
        found: dict[str, Any] = {}
        for field, knob in self._spaces[name].knobs.items():
            if isinstance(knob, Choices):
                found[field] = parts.CategoricalDistribution(knob.values)
            elif knob.whole:
                found[field] = parts.IntDistribution(int(knob.low), int(knob.high), log=knob.log)
            else:
                found[field] = parts.FloatDistribution(knob.low, knob.high, log=knob.log)
        return found

    def finish(self, setting: Setting, result: Mapping[str, Any]) -> None:
        """Record the result of a setting (`Setting.result`); its objective is the mean over the seeds."""
        study, values = self._studies[setting.method], list(result["values"].values())
        written = {**result, "values": {str(seed): value for seed, value in result["values"].items()}}
        study.set_user_attr(f"result-{setting.number}", written)
        study.tell(setting.number, sum(values) / len(values))


def drop_torn_line(journal: Path) -> None:
    """Cut off a last line that a killed process has not written completely; Optuna could not read past it."""
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(journal, "r+b") as stream:
            stream.truncate(whole)


def _untried(space: Space, tried: list[Params], seed: int) -> Params:
    """A setting that was not tried, at random; of a space that has one, so small that draws keep repeating."""
    values = {}
    for field, knob in space.knobs.items():
        whole = isinstance(knob, Range) and knob.whole
        values[field] = tuple(range(int(knob.low), int(knob.high) + 1)) if whole else knob.ends()
    left = [params for params in Space(space.method, space.default, _as_lists(values)).grid() if params not in tried]
    return random.Random(seed).choice(left)


def _as_lists(values: Mapping[str, tuple]) -> dict[str, Choices]:
    return {field: Choices(found) for field, found in values.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings that the parts used here may still change: setup.py has the range that was tried."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna_module().exceptions.ExperimentalWarning)
        yield
