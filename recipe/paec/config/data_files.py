"""The data files of a configuration: as they were given, and as verl opens them."""

from __future__ import annotations

import glob
from pathlib import Path

from omegaconf import DictConfig

KEYS = ("train_files", "val_files")


def data_files(config: DictConfig) -> dict[str, list[str]]:
    """The data files of `data.train_files` and `data.val_files`, by the last part of their key."""
    return {key: [config.data[key]] if isinstance(config.data[key], str) else list(config.data[key]) for key in KEYS}


def use_absolute_files(config: DictConfig) -> None:
    """Replace the data files by absolute ones, as patterns that match them and nothing else.

    Only in the training process: the record has what was given. verl gives the text to `datasets.load_dataset`, which
    knows no `~` and takes `[`, `?` and `*` for a pattern; and workers on other nodes may have another current folder.
    """
    for key, files in data_files(config).items():
        config.data[key] = [glob.escape(str(Path(file).expanduser().absolute())) for file in files]
