"""The quick start's configuration with single keys changed, and file systems of a given size."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

BASE: list[DictConfig] = []
"""The quick start's configuration, composed once: it takes a second."""


@pytest.fixture
def tiny_config(compose, tiny_files, tmp_path, monkeypatch):
    """tiny_config(*overrides, root=folder) -> the quick start's resolved configuration, with single keys changed."""

    def make(*overrides: str, root: Path = tmp_path / "runs") -> DictConfig:
        monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
        if not BASE:
            BASE.append(compose())
        config = BASE[0].copy()
        with open_dict(config):
            for override in overrides:
                key, _, value = override.partition("=")
                OmegaConf.update(config, key, yaml.safe_load(value))
            config.run.root, config.run.directory = str(root), str(root / "tiny")
            config.trainer.default_local_dir = str(root / "tiny" / "checkpoints")
        return config

    return make


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(mebibytes) -> the folder of a file system of that size."""
    mounted = []

    def mount(mebibytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,nr_inodes=5k", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
