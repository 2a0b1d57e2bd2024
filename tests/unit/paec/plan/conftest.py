"""The machine of the page: flash-attn, and no model of one's own."""

from __future__ import annotations

import pytest

from recipe.paec.config import attention


@pytest.fixture(autouse=True)
def no_own_model(monkeypatch):
    monkeypatch.delenv("MODEL", raising=False)


@pytest.fixture(autouse=True)
def flash_attn(monkeypatch):
    """Installed, whatever this machine has: the tables of the document."""
    monkeypatch.setattr(attention, "has_flash_attn", lambda: True)
