"""The request for a grid: methods, seeds and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from recipe.paec.common import folder_names
from recipe.paec.common.errors import UserError
from recipe.paec.common.secrets import check_arguments
from recipe.paec.config import keys, values
from recipe.paec.config.command_line import explain
from recipe.paec.config.resolve import composed, resolved, run_suffix

KNOBS = {"METHODS": "", "SEEDS": "0 1 2", "EXPERIMENT": "tiny_cpu", "GRID": "", "SLURM": ""}
"""Word of the command line or environment variable -> default."""
OURS = {
    "method": "METHODS",
    "seed": "SEEDS",
    "experiment": "EXPERIMENT",
    "run.name": "GRID",
    "run.directory": "run.root",
    "run.dry_run": "--dry-run",
    "run.fresh": "run.root, for a grid that starts over",
}
"""Configuration key that the grid sets itself -> what to use instead."""
_ENTRY = re.compile(r"(?:(?P<label>[^=:]+)=)?(?P<method>[^=:]+)(?P<overrides>(?::[^:]+)*)")


def compose(overrides: Sequence[str]) -> DictConfig:
    """The resolved configuration of a training's command line; UserError for keys and values that do not exist."""
    if errors := keys.check_overrides(overrides):
        raise UserError(*errors)
    try:
        return resolved(composed(*overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, list(overrides), "train")) from None


@dataclass(frozen=True)
class Entry:
    """One word of METHODS, a row of the table."""

    label: str
    method: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """The request of a command line."""

    experiment: str
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    """Overrides of all runs."""
    name: str
    words: Mapping[str, str]
    """KNOBS as given."""

    def pairs(self) -> list[tuple[Entry, int]]:
        """One pair per run; its position is the task of a Slurm array. All methods with the first seed come first."""
        return [(entry, seed) for seed in self.seeds for entry in self.entries]

    def run_name(self, entry: Entry, seed: int) -> str:
        """The default name, independent of the machine; other overrides give another one."""
        return f"{self.experiment}-{entry.label}{run_suffix(list(self.overrides))}-seed{seed}"

    def arguments(self, entry: Entry, seed: int) -> list[str]:
        """The overrides of one run, without its experiment."""
        name = f"run.name='{self.run_name(entry, seed)}'"
        return [f"method={entry.method}", *entry.overrides, f"seed={seed}", *self.overrides, name]

    def given_twice(self) -> list[str]:
        """A note for every key that occurs more than once, for all runs or for one row."""
        own = [f"{entry.label}: {note}" for entry in self.entries for note in keys.given_twice(entry.overrides)]
        return keys.given_twice(self.overrides) + own

    def configuration(self, entry: Entry, seed: int) -> DictConfig:
        """The resolved configuration of one run; UserError for keys and values that do not exist."""
        return compose([f"experiment={self.experiment}", *self.arguments(entry, seed)])


def parse_entry(word: str) -> Entry:
    """Parse one word of METHODS; UserError if it is invalid."""
    match = _ENTRY.fullmatch(word)
    if match is None:
        raise UserError(
            f"METHODS: {word!r} must have the form [LABEL=]METHOD[:OVERRIDE]..., as in low=paec:method.rho_min=0.5"
        )
    overrides = tuple(match["overrides"].split(":")[1:])
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(f"METHODS: {word!r}: {override!r} is not an override: write key=value")
    label = match["label"] or match["method"] + run_suffix(list(overrides))
    if not re.fullmatch(r"[\w.,=+-]+", label, re.ASCII):
        raise UserError(f"METHODS: {label!r} becomes part of a folder name: use only letters, digits and . , = + - _")
    return Entry(label, match["method"], overrides)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Grid:
    """The grid of a command line without flags; UserError for errors that can be found without a configuration."""
    words_given = [a.split("=", 1) for a in arguments if a.partition("=")[0] in KNOBS]
    given = dict(words_given)
    if len(given) < len(words_given):
        knobs = [knob for knob, _ in words_given]
        twice = max(knobs, key=knobs.count)
        raise UserError(f"{twice} is given {knobs.count(twice)} times: give it once")
    overrides = [a for a in arguments if a.partition("=")[0] not in KNOBS]
    words = {knob: given.get(knob, environment.get(knob, default)) for knob, default in KNOBS.items()}
    for argument in overrides:
        if argument.startswith("-") or "=" not in argument and not argument.startswith("~"):
            raise UserError(
                f"{argument}: must be an override key=value, {'=, '.join(KNOBS)}=, --table-only or --dry-run"
            )
    entries = [parse_entry(word) for word in words["METHODS"].split()]
    if not entries:
        raise UserError('METHODS is empty: name the methods to compare, as in METHODS="none paec"')
    everywhere = [*overrides, *(o for entry in entries for o in entry.overrides)]
    if secrets := check_arguments(everywhere):
        raise UserError(*secrets)
    for override in everywhere:
        key = keys.key_of(override)
        if key in OURS:
            raise UserError(f"{override}: the grid sets {key} itself: use {OURS[key]}")
    common = {keys.key_of(override) for override in overrides}
    for entry in entries:
        for override in entry.overrides:
            if (key := keys.key_of(override)) in common:
                raise UserError(
                    f"{key} is given for {entry.label} and for all runs, which would override it: leave one out"
                )
    seeds = words["SEEDS"].split()
    for seed in seeds:
        if not (re.fullmatch(r"\d{1,20}", seed, re.ASCII) and values.SEED.accepts(int(seed))):
            raise UserError(f"SEEDS: {seed}: {values.SEED.says}")
    if not seeds:
        raise UserError('SEEDS is empty: give at least one seed, as in SEEDS="0 1 2"')
    for what, found in (("METHODS", [e.label for e in entries]), ("SEEDS", [str(int(seed)) for seed in seeds])):
        twice = next((one for one in found if found.count(one) > 1), None)
        if twice is not None:
            raise UserError(f"{what}: {twice} occurs twice: leave one out, or give it its own LABEL=")
    experiment = words["EXPERIMENT"]
    name = words["GRID"] or f"compare-{experiment}{run_suffix(overrides)}"
    if not re.fullmatch(r"[\w.,=+-]+", name, re.ASCII):
        raise UserError(f"GRID={name}: must be a folder name with only letters, digits and . , = + - _")
    if problem := folder_names.name_error("GRID", name):
        raise UserError(problem)
    return Grid(experiment, tuple(entries), tuple(map(int, seeds)), tuple(overrides), name, words)
