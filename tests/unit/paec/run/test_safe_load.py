"""Checkpoints are read as tensors only."""

from __future__ import annotations

import os
import random

import numpy
import pytest
import torch
from checkpoint_worker import Canary

from recipe.paec.run.checkpoints import CheckpointError
from recipe.paec.run.safe_load import FORCE, tensors_only


def random_state() -> dict:
    """As verl's checkpoint manager saves it."""
    return {"cpu": torch.get_rng_state(), "numpy": numpy.random.get_state(), "random": random.getstate()}


def test_checkpoints_are_read_as_tensors_only(tmp_path):
    """What verl's checkpoints hold is read although verl asks for all of pickle; anything else is not."""
    safe, bad, canary = tmp_path / "extra.pt", tmp_path / "model.pt", tmp_path / "canary"
    scheduler = {"base_lrs": [1e-6], "last_epoch": 3, "lr_lambdas": [{}]}
    torch.save({"lr_scheduler": scheduler, "rng": random_state()}, safe)
    torch.save({"weight": Canary(canary)}, bad)
    with tensors_only(tmp_path):
        content = torch.load(safe, weights_only=False)
    assert content["lr_scheduler"] == scheduler
    assert numpy.array_equal(content["rng"]["numpy"][1], numpy.random.get_state()[1])
    with pytest.raises(CheckpointError, match=f"{tmp_path}: a file contains something other than tensors"):
        with tensors_only(tmp_path):
            torch.load(bad, weights_only=False)
    assert not canary.exists() and FORCE not in os.environ
    torch.load(bad, weights_only=False)
    assert canary.exists(), "the canary must work for its absence to say anything"
