"""A small benchmark, and configurations composed as the evaluation's command line does."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest
from evaluation_cases import row
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from data_prep.contract import write_parquet
from recipe.paec.common.repository import CONFIGS
from recipe.paec.evaluate import settings
from recipe.paec.evaluate.command import arguments_of


@pytest.fixture
def aime(tmp_path) -> Path:
    write_parquet([row(i, str(100 + i)) for i in range(3)], tmp_path / "data" / "aime24" / "test.parquet")
    return tmp_path / "data"


@pytest.fixture
def evaluation():
    """evaluation("seed=1", ...) -> the resolved configuration of that command line."""

    def make(*overrides: str):
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = hydra.compose("evaluate", overrides=arguments_of(list(overrides)), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        return settings.resolved(config)

    return make
