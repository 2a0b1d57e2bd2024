"""Metrics by hand; their names are those of the pipeline (tests/unit/lab/test_grpo.py)."""

from __future__ import annotations

import time

import pytest
import torch

from paec_loss import Clip, Tokens, TokenStatistics, Update
from recipe.lab.metrics import clipped_shares, spread, timed


def test_clipped_shares_by_hand():
    """Ratios 1.5 and 0.5 are held where the advantage pulls further out; a ratio of 4 with A < 0 by the dual clip."""
    ratios = torch.tensor([[1.5, 1.5, 0.5, 0.5, 4.0, 9.0]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0, -1.0, 1.0]])
    inside = torch.tensor([[True] * 5 + [False]])
    zeros = torch.zeros_like(ratios)
    statistics = TokenStatistics(ratios.log(), *[zeros] * 6, vocab_size=3)
    tokens = Tokens(statistics, zeros, advantages, inside, torch.tensor([0]))
    found = clipped_shares(tokens, Update(1, 1, 5, Clip(0.2, 0.2, 3.0)))
    assert found == {"actor/pg_clipfrac": pytest.approx(2 / 5), "actor/pg_clipfrac_lower": pytest.approx(1 / 5)}


def test_spread():
    assert spread("x", torch.tensor([1.0, 4.0, 1.0])) == {"x/mean": 2.0, "x/max": 4.0, "x/min": 1.0}


def test_the_clocks():
    metrics: dict[str, float] = {}
    with timed(metrics, "gen"):
        time.sleep(0.05)
    assert 0.05 <= metrics["timing_s/gen"] and 0 <= metrics["timing_cpu_s/gen"] < metrics["timing_s/gen"]
