"""A baseline with one seed, and a method with three."""

from __future__ import annotations

import pytest
from comparison_cases import HIGH, LOW, evaluation


@pytest.fixture
def folders(tmp_path):
    """A baseline with one seed, and a method with three."""
    evaluation(tmp_path / "grpo", LOW)
    evaluation(tmp_path / "paec-seed1", HIGH)
    evaluation(tmp_path / "paec-seed2", {**HIGH, "math500": [4, 4, 1, 3]})
    evaluation(tmp_path / "paec-seed3", {**HIGH, "math500": [4, 4, 1, 4]})
    return tmp_path
