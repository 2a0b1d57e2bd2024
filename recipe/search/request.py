"""The file of a search, checked as far as the file alone allows.

all: [steps=150]                      # overrides of every run
seeds: [11]
trials: 3                             # settings of every method, its default first
sampler: {name: tpe, seed: 0}         # or grid, random
objective: {take: last, of: avg@32}   # recipe.search.objective
runner: lab                           # or pipeline, with experiment: NAME and slurm: OPTIONS
methods:
  none: {}
  clip_cov: {ratio: [0.0002, 0.002, 0.02]}
  entropy_bonus: {coefficient: {low: 0.0001, high: 0.1, log: true}}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from recipe.paec.common.errors import UserError
from recipe.paec.config.keys import key_of
from recipe.paec.config.values import SEED
from recipe.search.objective import Objective, objective_of
from recipe.search.space import Knob, Range, Space, knob_of

NEEDED = ("seeds", "trials", "sampler", "objective", "methods")
KEYS = (*NEEDED, "all", "runner", "experiment", "slurm")
SAMPLERS = ("grid", "random", "tpe")
RUNNERS = ("lab", "pipeline")


@dataclass(frozen=True)
class Sampler:
    """How settings are chosen, apart from the default."""

    name: str
    """One of SAMPLERS."""
    seed: int = 0
    """Settings drawn are a function of it, the method and, for tpe, of what the earlier ones gave."""
    startup: int = 10
    """tpe draws this many settings of a method at random, the default included, before it uses what they gave."""


@dataclass(frozen=True)
class Request:
    """A search."""

    name: str
    """The file's, without its ending."""
    overrides: tuple[str, ...]
    """Of every run (`all`)."""
    seeds: tuple[int, ...]
    trials: int
    sampler: Sampler
    objective: Objective
    runner: str
    experiment: str
    """Of the pipeline."""
    slurm: str
    """Options of sbatch; "" trains here."""
    methods: Mapping[str, Mapping[str, Knob]]

    def settings(self, method: str) -> int:
        """How many settings a method gets: `trials`, or its default alone if it has no knob."""
        return self.trials if self.methods[method] else 1

    def written(self) -> dict[str, Any]:
        """What must stay equal when a search is resumed, methods left out."""
        place = {"experiment": self.experiment} if self.runner == "pipeline" else {}
        return {
            "all": list(self.overrides),
            "seeds": list(self.seeds),
            "trials": self.trials,
            "sampler": asdict(self.sampler),
            "objective": self.objective.written(),
            "runner": self.runner,
            **place,
        }


def read(file: Path) -> Request:
    """The search of a file.

    Raises:
        UserError: one sentence for each thing that is wrong.
    """
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))  # which reads 1e-4 as a number, unlike yaml
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{file}: is not YAML: {' '.join(str(error).split())}") from None
    return request_of(content, file.stem)


def request_of(content: Any, name: str) -> Request:
    """The search of a file's content; raises as `read`."""
    if not isinstance(content, Mapping):
        raise UserError("the file of a search has seeds, trials, sampler, objective and methods (docs/search.md)")
    errors = [f"{key}: is not a key of a search{_closest(key)}" for key in content if key not in KEYS]
    errors += [f"{key}: is missing: docs/search.md shows a complete file" for key in NEEDED if key not in content]
    if errors:
        raise UserError(*errors)
    found: dict[str, Any] = {}
    parts = {
        "overrides": lambda: _overrides(content.get("all", [])),
        "seeds": lambda: _seeds(content["seeds"]),
        "trials": lambda: _whole("trials", content["trials"], 1),
        "sampler": lambda: _sampler(content["sampler"]),
        "objective": lambda: objective_of(content["objective"]),
        "runner": lambda: _choice("runner", content.get("runner", "lab"), RUNNERS),
        "methods": lambda: _methods(content["methods"]),
    }
    for key, part in parts.items():
        try:
            found[key] = part()
        except UserError as error:
            errors += error.errors
    if errors:
        raise UserError(*errors)
    place = {key: content.get(key, default) for key, default in (("experiment", "tiny_cpu"), ("slurm", ""))}
    for key, value in place.items():
        if key in content and found["runner"] == "lab":
            raise UserError(f"{key}: is only for runner: pipeline: leave it out")
        if not isinstance(value, str):
            raise UserError(f"{key}={value}: must be text")
    request = Request(name=name, **found, **place)
    _check_budget(request)
    return request


def refuse_own(overrides: Iterable[str], own: Mapping[str, str]) -> None:
    """UserError for an override of all runs that the search sets itself; `own`: its key -> what to use instead."""
    for override in overrides:
        key = key_of(override)
        if key in own:
            raise UserError(f"all: {override}: the search sets {key} itself: use {own[key]}")


def check_count(request: Request, space: Space) -> None:
    """UserError if a method has not as many different settings as the budget wants."""
    count, wanted = space.count(), request.settings(space.method)
    if count < wanted:
        raise UserError(
            f"methods.{space.method}: has {count:g} settings with its default, but trials is {wanted}: every method "
            "gets the same number, so give it more values, or lower trials"
        )
    if request.sampler.name == "grid" and count > wanted:
        raise UserError(
            f"methods.{space.method}: its grid has {count:g} settings with its default, but trials is {wanted}: a grid "
            "is tried completely, so name fewer values, or set another sampler"
        )


def _check_budget(request: Request) -> None:
    sampler = request.sampler
    if sampler.name == "grid":
        for method, knobs in request.methods.items():
            for field, knob in knobs.items():
                if isinstance(knob, Range):
                    raise UserError(
                        f"methods.{method}.{field}: is a range, and a grid needs lists: list its values, or set "
                        "another sampler"
                    )
    if sampler.name == "tpe" and request.trials <= sampler.startup:
        raise UserError(
            f"trials={request.trials}: tpe draws the first {sampler.startup} settings of a method at random, and would "
            "never choose one: use sampler: random, or lower sampler.startup"
        )


def _closest(key: Any) -> str:
    close = difflib.get_close_matches(str(key), KEYS, n=1)
    return f": did you mean {close[0]}?" if close else f" (its keys: {', '.join(KEYS)})"


def _overrides(written: Any) -> tuple[str, ...]:
    if not isinstance(written, list) or not all(isinstance(one, str) for one in written):
        raise UserError("all: must be a list of overrides, such as [steps=150]")
    for override in written:
        key = key_of(override)
        if key == "method" or key.startswith("method."):
            raise UserError(f"all: {override}: the search sets the methods itself: name them under methods")
        if key == "seed":
            raise UserError(f"all: {override}: the search sets the seeds itself: use seeds")
    return tuple(written)


def _seeds(written: Any) -> tuple[int, ...]:
    if not isinstance(written, list) or not written:
        raise UserError("seeds: must be a list of at least one seed, such as [11]")
    if wrong := [seed for seed in written if not SEED.accepts(seed)]:
        raise UserError(f"seeds={wrong[0]}: {SEED.says}")
    if len(set(written)) < len(written):
        raise UserError(f"seeds: {max(written, key=written.count)} occurs twice: delete one of them")
    return tuple(written)


def _whole(name: str, value: Any, at_least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise UserError(f"{name}={value}: must be an integer >= {at_least}")
    return value


def _choice(name: str, value: Any, options: tuple[str, ...]) -> str:
    if value not in options:
        raise UserError(f"{name}={value}: must be one of {', '.join(options)}")
    return value


def _sampler(written: Any) -> Sampler:
    given = {"name": written} if isinstance(written, str) else written
    if not isinstance(given, Mapping) or "name" not in given:
        raise UserError("sampler: must be like {name: tpe, seed: 0}")
    if unknown := [key for key in given if key not in ("name", "seed", "startup")]:
        raise UserError(f"sampler.{unknown[0]}: a sampler has only name, seed and startup")
    name = _choice("sampler", given["name"], SAMPLERS)
    if "startup" in given and name != "tpe":
        raise UserError("sampler.startup: only tpe has one: leave it out")
    numbers = {key: _whole(f"sampler.{key}", given[key], least) for key, least in LEAST.items() if key in given}
    return Sampler(name, **numbers)


LEAST = {"seed": 0, "startup": 1}
"""Number of a sampler -> its smallest value."""


def _methods(written: Any) -> dict[str, dict[str, Knob]]:
    if not isinstance(written, Mapping) or not written:
        raise UserError("methods: must name the methods and their knobs, as in {none: {}, clip_cov: {ratio: [0.002]}}")
    errors, found = [], {}
    for name, knobs in written.items():
        if not isinstance(name, str) or not isinstance(knobs, Mapping | None):
            errors.append(f"methods.{name}: must be its knobs, as in {{ratio: [0.0002, 0.002]}}, or {{}} without one")
            continue
        found[name] = {}
        for field, knob in (knobs or {}).items():
            try:
                found[name][str(field)] = knob_of(f"methods.{name}.{field}", knob)
            except UserError as error:
                errors += error.errors
    if errors:
        raise UserError(*errors)
    return found
