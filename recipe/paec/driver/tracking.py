"""Experiment trackers through verl's tracking: grouped names, data in the run's folder, resumed with the run.

`prepare` is called before verl creates its trackers, `complete` when it has.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import write_json
from recipe.paec.common.folder_kinds import TRACKERS_FILE, read_json_or_none

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
GROUPED = ("tensorboard", "wandb", "trackio", "mlflow")
"""Trackers that get the grouped names."""
PACKAGES = {
    **{name: name for name in (*GROUPED, "swanlab", "clearml", "rl_insight")},
    "vemlp_wandb": "volcengine_ml_platform",
}
"""Tracker -> the package that verl imports for it; the others need none."""
ENVIRONMENT = {
    "tensorboard": {"TENSORBOARD_DIR": "tensorboard"},
    "wandb": {"WANDB_DIR": "."},
    "trackio": {"TRACKIO_DIR": "trackio"},
}
"""Tracker -> variables that say where it writes, relative to the run's folder; what is already set stays."""


SAMPLES_TABLE = "generations.json"
"""MLflow's table of validation responses, an artifact of the run."""


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


def complete(config: DictConfig, trackers: dict[str, Any], samples: Any) -> None:
    """What verl's trackers lack: grouped names, and MLflow's table of validation responses. May be called again.

    Args:
        config: of the run.
        trackers: verl's, by name.
        samples: verl's logger of validation responses.

    Raises:
        UserError: verl could not create MLflow's tracker, and would train on without it.
    """
    if "mlflow" in chosen(config):
        if "mlflow" not in trackers:
            uri = os.environ.get("MLFLOW_TRACKING_URI")
            raise UserError(f"trainer.logger: mlflow could not start a run at {uri} (the log above has the reason)")
        samples.log_generations_to_mlflow = _log_table
    group_names(trackers)


def _log_table(samples: Sequence[tuple[Any, ...]], step: int) -> None:
    """Add validation responses (prompt, response, score) to MLflow's table, a row for each."""
    import mlflow

    inputs, outputs, scores = ([sample[i] for sample in samples] for i in range(3))
    columns = {"step": [step] * len(samples), "input": inputs, "output": outputs, "score": scores}
    try:
        mlflow.log_table(columns, SAMPLES_TABLE)
    except (mlflow.exceptions.MlflowException, OSError) as error:  # a server that is away must not end the training
        say(f"warning: mlflow did not take the validation responses of step {step}: {error}")


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
        UserError: a tracker is not installed, or MLflow does not have the run that is resumed.
    """
    directory, names, step = Path(config.run.directory), chosen(config), resumed_step(config)
    for name in names:
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
            needed = "" if name == PACKAGES[name] else f" ({PACKAGES[name]})"
            raise UserError(
                f"trainer.logger: {name}{needed} is not installed: docs/trackers.md says how, or leave it out"
            )
        for variable, place in ENVIRONMENT.get(name, {}).items():
            os.environ.setdefault(variable, str(directory / place))
    if "wandb" in names:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_RUN_ID", _run_id(directory, step))
        os.environ.setdefault("WANDB_RESUME", "allow")
    if "mlflow" in names:
        _prepare_mlflow(config, directory, step)
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
    return _recorded(directory, "wandb", step) or _record(directory, "wandb", secrets.token_hex(4))


def _recorded(directory: Path, tracker: str, step: int | None) -> str | None:
    """The id that a run which is resumed has at a tracker; None for a run that begins, or without a record."""
    found = (read_json_or_none(directory / TRACKERS_FILE) or {}).get(tracker)
    return found if step is not None and isinstance(found, str) else None


def _record(directory: Path, tracker: str, made: str) -> str:
    """Record the run's id at a tracker; returns it."""
    write_json(directory / TRACKERS_FILE, {**(read_json_or_none(directory / TRACKERS_FILE) or {}), tracker: made})
    return made


def _prepare_mlflow(config: DictConfig, directory: Path, step: int | None) -> None:
    """Begin a run in a database in the run's folder, or at MLFLOW_TRACKING_URI, and let verl attach to it.

    A resumed run continues its own, and MLFLOW_RUN_ID is taken as it is. MLflow never changes a parameter, so the
    configuration is only logged to a run that has none: verl would give up MLflow at the first difference.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow  # reads that when it is imported

    place = (directory / "mlflow").absolute()
    local = f"sqlite:///{place / 'mlflow.db'}"
    uri = os.environ.setdefault("MLFLOW_TRACKING_URI", local)
    if uri == local:
        place.mkdir(parents=True, exist_ok=True)
    client = mlflow.MlflowClient(tracking_uri=uri)
    run_id = os.environ.get("MLFLOW_RUN_ID") or _recorded(directory, "mlflow", step)
    try:
        if run_id is None:
            project = config.trainer.project_name
            found = client.get_experiment_by_name(project)
            artifacts = (place / "artifacts").as_uri() if uri == local else None
            experiment = found.experiment_id if found else client.create_experiment(project, artifacts)
            run_id = client.create_run(experiment, run_name=config.trainer.experiment_name).info.run_id
            _record(directory, "mlflow", run_id)
        known = client.get_run(run_id).data.params
    except mlflow.exceptions.MlflowException as error:
        raise UserError(
            f"trainer.logger: mlflow at {uri}, run {run_id}: {error}; delete {directory / TRACKERS_FILE} to begin a "
            "new run there, or leave mlflow out"
        ) from None
    os.environ["MLFLOW_RUN_ID"] = run_id
    if known:
        from verl.utils import tracking

        tracking._compute_mlflow_params_from_objects = lambda params: {}


def _forget_steps_after(step: int) -> None:
    """Tell TensorBoard that steps after a checkpoint, which the resumed run repeats, do not count."""
    from torch.utils.tensorboard import SummaryWriter

    SummaryWriter(os.environ["TENSORBOARD_DIR"], purge_step=step + 1).close()
