"""Where a run continues from, and the record of how it was started."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common import versions
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import replace_file, write_json
from recipe.paec.common.repository import git_commit
from recipe.paec.config.identity import CONTENTS, with_current_names
from recipe.paec.config.same_run import differences
from recipe.paec.run import checkpoints

IN_IDENTITY = (
    *("method.", "also.", "actor_rollout_ref.actor.fsdp_config.methods."),
    *("model.path.", "actor_rollout_ref.model.path."),
)
"""Settings, or sections, that a checkpoint's identity says: with current names, and the model wherever it is."""


def find_resume(config: DictConfig) -> tuple[checkpoints.Checkpoint | None, list[checkpoints.DamagedCheckpoint]]:
    """The newest intact checkpoint to resume from, and the newer ones that are damaged.

    Raises:
        UserError: it belongs to another method, model or data; the run had other settings; or there are only damaged
            ones.
    """
    root = Path(config.trainer.default_local_dir)
    try:
        checkpoint, damaged = checkpoints.latest(root)
    except checkpoints.CheckpointError as error:
        raise UserError(str(error)) from None
    if checkpoint is None:
        if damaged:
            raise UserError(
                *(str(error) for error in damaged),
                f"no checkpoint in {root} is intact: restore one from a copy, or start over with "
                "run.fresh=true, which deletes the old run",
            )
        return None, []
    wanted = OmegaConf.to_container(config.identity, resolve=True)
    recorded = with_current_names(checkpoint.state["identity"])
    wanted = {key: value for key, value in wanted.items() if key in recorded or key not in CONTENTS}
    difference = checkpoints.identity_difference(wanted, recorded)
    if difference is not None:
        raise UserError(
            f"{checkpoint.folder} belongs to another run: {difference}. Give this run its own name (run.name=...), or "
            "start over with run.fresh=true, which deletes the old run"
        )
    if changed := _changed_settings(config):
        raise UserError(
            f"{config.run.directory} was trained with other settings: {changed}. Give them as they were, give this run "
            "its own name (run.name=...), or start over with run.fresh=true, which deletes the old run"
        )
    return checkpoint, damaged


def _changed_settings(config: DictConfig) -> str:
    """What differs from the settings of the run's last start, with both values; what may change is left out."""
    file = Path(config.run.directory) / "config.yaml"
    if not file.is_file():
        return ""
    changed = differences(OmegaConf.load(file), config)
    return ", ".join(
        f"{key} was {there!r} and is {here!r}"
        for key, (there, here) in changed.items()
        if not f"{key}.".startswith(IN_IDENTITY)
    )


def write_provenance(config: DictConfig, directory: Path) -> Path:
    """Write `config.yaml` (resolved) and `versions.json`."""
    replace_file(directory / "config.yaml", OmegaConf.to_yaml(config))
    record = {**versions.report(), "python": sys.version.split()[0], "git_commit": git_commit()}
    write_json(directory / "versions.json", record)
    return directory / "config.yaml"
