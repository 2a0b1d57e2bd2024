"""Models for `recipe.paec.evaluate`: Hugging Face folders and hub ids, checkpoints, and runs."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common import folder_kinds
from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import context_length, file_errors, model_folder, read_config
from recipe.paec.export.huggingface import EXPORT_FILE, export_in_process, holds
from recipe.paec.run import checkpoints
from recipe.paec.run.checkpoints import run_of

EXPORTED = "model"
"""Folder of an exported checkpoint within the output, while it is needed."""


@dataclass(frozen=True)
class Target:
    """One model to evaluate."""

    source: str
    """What the user gave: folder, hub id or checkpoint."""
    folder: Path
    """Hugging Face folder, or a checkpoint that has to be exported first."""
    is_checkpoint: bool
    run: Path | None
    """Directory of the run it comes from."""
    step: int | None
    output: Path


def find_targets(config: DictConfig, label: str) -> list[Target]:
    """The models that `config.model.path` names; UserError if there are none.

    `label` names the settings of the evaluation in the folders of the results.
    """
    path = Path(config.model.path).expanduser()
    given = Path(config.output).expanduser() if config.output else None
    is_run = (folder_kinds.mark_of(path) or {}).get("kind") == folder_kinds.RUN.name
    if is_run and (path / "config.yaml").is_file() and (path / "checkpoints").is_dir():
        return _targets_of_run(config, path, given or path / "evaluation" / label)
    if config.steps is not None:
        raise UserError(
            f"steps={config.steps}: model={path} is not the folder of a run: leave steps= out, or give the run's folder"
        )
    if (path / checkpoints.STATE_FILE).is_file():
        try:
            run, step = run_of(path), checkpoints.read(path).step
        except checkpoints.CheckpointError as error:
            raise UserError(f"model={error}") from None
        output = given or (run or path) / "evaluation" / label / f"step_{step}"
        return [Target(config.model.path, path, True, run, step, output)]
    if _absolute(path).name.startswith("global_step_") and path.is_dir():
        raise UserError(
            f"model={path}: {checkpoints.STATE_FILE} is missing, so its save was interrupted: choose another step"
        )
    folder = model_folder(config.model.path)
    if folder is None:
        raise UserError(
            f"model={config.model.path}: does not exist, and is not in the Hugging Face cache: "
            f"run hf download {config.model.path}, or give a Hugging Face folder, a checkpoint "
            "(.../global_step_N) or the folder of a run"
        )
    problems = file_errors(folder, f"model={config.model.path}")
    if problems:
        raise UserError(*problems)
    run, step = None, None
    if (folder / EXPORT_FILE).is_file():
        step = json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))["step"]
        above = _absolute(folder).parent
        run = above if (above / "config.yaml").is_file() else None
    name = re.sub(r"[^A-Za-z0-9._-]", "_", config.model.path if not path.is_dir() else path.resolve().name)
    if run is not None:
        name = run.name
    output = given or Path("outputs") / "evaluation" / f"{name}-{label}"
    return [Target(config.model.path, folder.absolute(), False, run, step, output)]


def _absolute(path: Path) -> Path:
    """`path` without `.` and `..`, so that it has a name and parents; links stay."""
    return Path(os.path.abspath(path))


def _targets_of_run(config: DictConfig, folder_of_run: Path, output: Path) -> list[Target]:
    run = _absolute(folder_of_run)
    started_from = OmegaConf.load(run / "config.yaml").model.path
    found = {
        step: Target(str(folder), folder, True, run, step, output / f"step_{step}")
        for step, folder in reversed(checkpoints.steps(folder_of_run / "checkpoints"))
        if checkpoints.is_complete(folder)
    }
    start = model_folder(started_from)
    if start is not None:
        found = {0: Target(str(started_from), start.absolute(), False, run, 0, output / "step_0"), **found}
    wanted = sorted(found) if config.steps is None else list(config.steps)
    absent = [step for step in wanted if step not in found]
    if absent or not wanted:
        raise UserError(
            f"steps={absent or '[]'}: {run} has the steps {', '.join(map(str, found)) or 'none'} "
            "(raise run.keep_checkpoints in training to keep more)"
        )
    return [found[step] for step in wanted]


def revision(folder: Path) -> str | None:
    """The commit of a model in the Hugging Face cache (`.../snapshots/<commit>`), None for another folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def context_of(config: DictConfig, folder: Path) -> int:
    """Longest prompt + response: `context_length`, else what the model's config.json says."""
    if config.context_length is not None:
        return config.context_length
    length = context_length(read_config(folder))
    if not length:
        raise UserError(f"{folder}/config.json has no max_position_embeddings: set context_length=...")
    return length


def exported(target: Target) -> Path:
    """The target as a Hugging Face folder: itself, the run's export of that step, or a temporary export."""
    if not target.is_checkpoint:
        return target.folder
    if target.run is not None:
        ready = target.run / "huggingface"
        if holds(ready, target.folder, target.step):
            return ready.absolute()
    folder = target.output / EXPORTED
    if folder.is_dir():
        return folder
    say(f"exporting {target.folder}")
    export_in_process(target.folder, folder, target.output / "export.log")
    return folder
