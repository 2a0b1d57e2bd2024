"""The runs of a grid, composed and checked to be comparable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common import folder_kinds, folder_names, folders
from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.config import rules, same_run
from recipe.paec.config.resolve import folder_mark
from recipe.paec.grid.request import Grid
from recipe.paec.grid.runs import GridRun

TERMS = (
    "trainer.total_training_steps",
    "data.val_files",
    "data.val_max_samples",
    *(f"actor_rollout_ref.rollout.val_kwargs.{key}" for key in ("n", "temperature", "top_p", "top_k")),
)
"""Configuration keys in which the runs of a table must agree."""


def prepare(grid: Grid) -> list[GridRun]:
    """The grid's runs, in the order of `Grid.pairs`.

    Raises:
        UserError: a configuration that cannot work, runs that would not be compared on equal terms, or a directory with
            a different run than the one that belongs there. All errors are reported together.
    """
    say(f"checking {len(grid.entries)} methods")
    errors: dict[str, list[str]] = {}
    configs: dict[str, DictConfig] = {}
    for entry in grid.entries:  # the seeds have been checked (`request.parse`)
        try:
            configs[entry.label] = config = grid.configuration(entry, grid.seeds[0])
            found = rules.check_config(config)
        except UserError as error:
            found = error.errors
        for problem in found:
            errors.setdefault(problem, []).append(entry.label)
    if errors:
        every = len(grid.entries)
        raise UserError(*(p if len(who) == every else f"{', '.join(who)}: {p}" for p, who in errors.items()))
    found = _unequal_terms(configs)
    runs = []
    for entry, seed in grid.pairs():
        config = configs[entry.label]
        run = GridRun(
            label=entry.label,
            seed=seed,
            directory=Path(config.run.root) / grid.run_name(entry, seed),
            steps=config.trainer.total_training_steps,
            saves=config.trainer.save_freq > 0,
            exports=config.run.export,
        )
        mark = {**folder_mark(config), "name": grid.run_name(entry, seed)}
        problem = folder_names.name_error("run.name", mark["name"])
        if problem := problem or folders.error_of(run.directory, folder_kinds.RUN, mark, fresh=False):
            found.append(problem)
        elif (run.directory / "config.yaml").is_file():
            found += _other_run(run, grid.configuration(entry, seed))
        runs.append(run)
    table = runs[0].directory.parent / grid.name
    if problem := folders.error_of(table, folder_kinds.GRID, {}, fresh=False):
        found.append(problem)
    if found:
        raise UserError(*found)
    return runs


def _unequal_terms(configs: Mapping[str, DictConfig]) -> list[str]:
    """Why validations of the methods (label -> configuration) would not measure the same thing."""
    errors = []
    (first, reference), *others = configs.items()
    if blind := [label for label, config in configs.items() if config.trainer.test_freq <= 0]:
        errors.append(
            f"{', '.join(blind)}: trainer.test_freq must be > 0: the table needs the accuracy of a validation"
        )
    for key in TERMS:
        wanted = OmegaConf.select(reference, key)
        for label, config in others:
            value = OmegaConf.select(config, key)
            if value != wanted:
                errors.append(
                    f"{label} and {first} cannot be compared: {key} is {value} and {wanted}: set it for all runs, "
                    "not in METHODS"
                )
    return errors


def _other_run(run: GridRun, config: DictConfig) -> list[str]:
    """Why the run in a directory is a different one than `config` describes."""
    remedy = "choose another run.root"
    if (run.step() or 0) > run.steps:
        return [f"{run.directory} is already at step {run.step()}, more than the {run.steps} steps asked for: {remedy}"]
    changed = same_run.differences(OmegaConf.load(run.directory / "config.yaml"), config)
    differ = [f"its {key} is {there!r}, but this command has {here!r}" for key, (there, here) in changed.items()]
    return [f"{run.directory} contains another run: {', '.join(differ)}: {remedy}"] if differ else []
