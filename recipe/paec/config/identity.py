"""What a checkpoint must agree with to be resumed."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from paec_loss.schedule import Schedule
from recipe.paec.common.model_files import fingerprint, fingerprint_of, model_folder
from recipe.paec.config.methods import stack_of
from recipe.paec.config.schema import RENAMED_FIELDS, TRAINER_MODES

CONTENTS = ("model (content)", "data.train_files (content)")
"""Keys of an identity that those of older checkpoints lack, which are resumed all the same."""


def trainer_mode(config: DictConfig) -> str:
    """`sync`, `colocate_async` or `separate_async`; KeyError for a trainer that is not this recipe's."""
    return {name: mode for mode, name in TRAINER_MODES.items()}[config.trainer.v1.trainer_mode]


def identity(config: DictConfig) -> dict[str, Any]:
    """What a checkpoint must agree with to be resumed: method, model, data, scorers, adapters, seed, mode, workers."""
    folder = model_folder(config.model.path)
    model = None
    if folder is not None and (folder / "config.json").is_file():
        digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:16]
        weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        model = f"{digest}/{weights}"
    stack = stack_of(config)
    methods = dict(zip(stack.names, stack.methods, strict=True))
    first, *others = stack.names
    files = config.data.train_files
    files = [files] if isinstance(files, str) else list(files)
    paths = {str(number): Path(file).expanduser() for number, file in enumerate(files)}
    contents = (
        model and fingerprint(folder)[:16],
        fingerprint_of(paths)[:16] if all(path.is_file() for path in paths.values()) else None,
    )
    lora = OmegaConf.to_container(config.lora, resolve=True)
    return {
        "method": first,
        **{f"method.{key}": _plain(value) for key, value in asdict(methods[first]).items()},
        **{f"also.{name}.{key}": _plain(v) for name in others for key, v in asdict(methods[name]).items()},
        "model": model,
        "data.train_files": files,
        "data.train_batch_size": config.data.train_batch_size,
        "data.curriculum.stages": config.data.curriculum and config.data.curriculum.stages,
        "seed": config.seed,
        "mode": trainer_mode(config),
        **{f"reward.scorers.{source}": scorer for source, scorer in config.reward.scorers.items()},
        **{f"lora.{key}": value for key, value in lora.items() if key != "merge"},
        **dict(zip(CONTENTS, contents, strict=True)),
        "workers": config.cluster.nodes * config.cluster.gpus_per_node,
    }


def with_current_names(identity: dict[str, Any]) -> dict[str, Any]:
    """A recorded identity with the current names of a method's fields."""

    def current(key: str) -> str:
        section, _, field = key.rpartition(".")
        is_field = section == "method" or section.startswith("also.")
        return f"{section}.{RENAMED_FIELDS[field]}" if is_field and field in RENAMED_FIELDS else key

    return {current(key): value for key, value in identity.items()}


def _plain(value: Any) -> Any:
    """The value after a round trip through JSON; a schedule as its text."""
    if isinstance(value, Schedule):
        return value.text
    return list(value) if isinstance(value, tuple) else value
