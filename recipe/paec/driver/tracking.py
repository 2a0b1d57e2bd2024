"""Experiment trackers through verl's tracking: grouped names, data in the run's folder, resumed with the run.

`prepare` is called before verl creates its trackers, `group_names` when it has.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from recipe.paec.common.errors import UserError
from recipe.paec.common.files import write_json
from recipe.paec.common.folder_kinds import TRACKERS_FILE, read_json

GROUPS = (
    (r"actor/(?!perf/)(\w+)/(.+)", r"\1/\2"),
    (r"actor/(perf/.+)", r"\1"),
    (r"actor/(entropy\w*)", r"entropy/\1"),
    (r"critic/(score|rewards|advantages|returns)/(.+)", r"reward/\1/\2"),
    (r"(response|prompt|response_length|response_length_non_aborted|prompt_length|num_turns)/(.+)", r"length/\1/\2"),
    (r"global_seqlen/(.+)", r"length/global/\1"),
    (r"rollout_corr/(.+)", r"rollout/\1"),
    (r"training/((?:rollout|off_policy|num_turns).+)", r"rollout/\1"),
    (r"timing_s/(.+)", r"time/\1"),
    (r"timing_per_token_ms/(.+)", r"time/per_token_ms/\1"),
)
"""Name of a metric, a regular expression -> its name in a tracker, which groups by what is before the first slash.

The first that matches counts; all other names stay.
"""
GROUPED = ("tensorboard", "wandb", "trackio")
"""Trackers that get the grouped names."""
ENVIRONMENT = {
    "tensorboard": {"TENSORBOARD_DIR": "tensorboard"},
    "wandb": {"WANDB_DIR": "."},
    "trackio": {"TRACKIO_DIR": "trackio"},
}
"""Tracker -> variables that say where it writes, relative to the run's folder; what is already set stays."""


def grouped(name: str) -> str:
    """The name of a metric in a tracker: `actor/paec/floor` is `paec/floor`, `timing_s/gen` is `time/gen`."""
    for pattern, replacement in GROUPS:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return name


class Grouped:
    """One of verl's trackers, which logs under the grouped names."""

    def __init__(self, tracker: Any):
        self._tracker = tracker

    def log(self, data: dict[str, Any], step: int) -> None:
        """Log the metrics of a step."""
        self._tracker.log(data={grouped(name): value for name, value in data.items()}, step=step)

    def finish(self, **how: Any) -> None:
        """Flush and close."""
        self._tracker.finish(**how)


def group_names(trackers: dict[str, Any]) -> None:
    """Make verl's trackers log under grouped names, once."""
    for name in GROUPED:
        if name in trackers and not isinstance(trackers[name], Grouped):
            trackers[name] = Grouped(trackers[name])


def chosen(config: DictConfig) -> list[str]:
    """The names in trainer.logger."""
    given = config.trainer.logger
    return list(given) if isinstance(given, list | ListConfig) else [given]


def resumed_step(config: DictConfig) -> int | None:
    """The step of the checkpoint that this start resumes from, None for a run that begins."""
    if config.trainer.resume_mode != "resume_path":
        return None
    return int(Path(config.trainer.resume_from_path).name.rpartition("_")[2])


def prepare(config: DictConfig) -> None:
    """Set where the chosen trackers write, and let them continue the record of a run that is resumed.

    Raises:
        UserError: a tracker is not installed.
    """
    directory, names, step = Path(config.run.directory), chosen(config), resumed_step(config)
    for name in names:
        if name in GROUPED and importlib.util.find_spec(name) is None:
            raise UserError(f"trainer.logger: {name} is not installed: docs/trackers.md says how, or leave it out")
        for variable, place in ENVIRONMENT.get(name, {}).items():
            os.environ.setdefault(variable, str(directory / place))
    if "wandb" in names:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_RUN_ID", _run_id(directory, step))
        os.environ.setdefault("WANDB_RESUME", "allow")
    if "tensorboard" in names and step is not None:
        _forget_steps_after(step)
    if "trackio" in names and step is not None:
        import trackio  # reads TRACKIO_DIR when it is imported

        # verl would begin another run of this name; it takes the one that has begun.
        content = OmegaConf.to_container(config, resolve=True)
        project, name = config.trainer.project_name, config.trainer.experiment_name
        trackio.init(project=project, name=name, config=content, resume="allow")


def _run_id(directory: Path, step: int | None) -> str:
    """The run's id at wandb: a new one for a run that begins, the recorded one for a run that is resumed."""
    file = directory / TRACKERS_FILE
    recorded = (read_json(file) or {}).get("wandb")
    if step is not None and isinstance(recorded, str):
        return recorded
    made = secrets.token_hex(4)
    write_json(file, {"wandb": made})
    return made


def _forget_steps_after(step: int) -> None:
    """Tell TensorBoard that steps after a checkpoint, which the resumed run repeats, do not count."""
    from torch.utils.tensorboard import SummaryWriter

    SummaryWriter(os.environ["TENSORBOARD_DIR"], purge_step=step + 1).close()
