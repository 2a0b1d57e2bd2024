"""Fixtures of several rooms."""

from __future__ import annotations

import shutil

import pytest


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
