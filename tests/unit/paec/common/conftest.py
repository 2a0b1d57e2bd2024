"""Secrets in the environment."""

from __future__ import annotations

import pytest
from planted_secrets import PLANTED


@pytest.fixture
def planted(monkeypatch) -> dict[str, str]:
    """Secrets in the environment."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    return PLANTED
