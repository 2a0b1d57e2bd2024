"""Fixtures of several rooms."""

from __future__ import annotations

import shutil
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
def model(tiny_files, tmp_path):
    """A copy of the tiny model, to be changed."""
    shutil.copytree(tiny_files / "model", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def scored(tiny_files, tmp_path):
    """A copy of the tiny training file with scores: row i has i / 100."""
    from recipe.paec.curriculum import prompt_scores

    path = tmp_path / "train.semantic_entropy.parquet"
    prompt_scores.write_scores(
        tiny_files / "data" / "train.parquet", path, {i: i / 100 for i in range(64)}, {"seed": 1}
    )
    return path
