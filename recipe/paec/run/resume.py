"""Where a run continues from, and the record of how it was started."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common import versions
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import replace_file, write_json
from recipe.paec.common.repository import git_commit
from recipe.paec.config.identity import with_current_names
from recipe.paec.run import checkpoints


def find_resume(config: DictConfig) -> tuple[checkpoints.Checkpoint | None, list[checkpoints.DamagedCheckpoint]]:
    """The newest intact checkpoint to resume from, and the newer ones that are damaged.

    Raises:
        UserError: it belongs to another method, model or data; or there are only damaged ones.
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
    difference = checkpoints.identity_difference(wanted, with_current_names(checkpoint.state["identity"]))
    if difference is not None:
        raise UserError(
            f"{checkpoint.folder} belongs to another run: {difference}. Give this run its own name (run.name=...), or "
            "start over with run.fresh=true, which deletes the old run"
        )
    return checkpoint, damaged


def write_provenance(config: DictConfig, directory: Path) -> Path:
    """Write `config.yaml` (resolved) and `versions.json`."""
    replace_file(directory / "config.yaml", OmegaConf.to_yaml(config))
    record = {**versions.report(), "python": sys.version.split()[0], "git_commit": git_commit()}
    write_json(directory / "versions.json", record)
    return directory / "config.yaml"
