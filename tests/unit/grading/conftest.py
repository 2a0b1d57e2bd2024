"""Graders that a file of tests shares."""

from __future__ import annotations

import pytest

from recipe.grading.pool import GraderPool


@pytest.fixture(scope="module")
def pool():
    with GraderPool(workers=2, time_limit=20.0) as pool:
        yield pool
