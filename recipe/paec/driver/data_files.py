"""The data files as verl opens them: absolute, and as the patterns that match them and nothing else."""

from __future__ import annotations

import glob
from pathlib import Path

from omegaconf import DictConfig

KEYS = ("train_files", "val_files")


def use_absolute_files(config: DictConfig) -> None:
    """Replace `data.train_files` and `data.val_files`, in the training process alone: the record has what was given.

    verl gives the text to `datasets.load_dataset`, which knows no `~` and takes `[`, `?` and `*` for a pattern; and
    workers on other nodes may have another current folder.
    """
    for key in KEYS:
        files = [config.data[key]] if isinstance(config.data[key], str) else config.data[key]
        config.data[key] = [glob.escape(str(Path(file).expanduser().absolute())) for file in files]
