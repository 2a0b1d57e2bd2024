"""GPUs, versions and plugins that are missing are named before anything starts."""

from __future__ import annotations

import pytest

from recipe.paec.doctor import environment


@pytest.mark.cpu_stack
def test_the_cpu_cluster_passes(tiny_config):
    assert environment.check_cluster(tiny_config()) == []


def test_no_gpus_here(compose, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    problems = environment.check_cluster(compose("experiment=qwen7b"))
    assert any("GPUs: 0 found on this node, but cluster.gpus_per_node=8" in problem for problem in problems)


def test_plugin_not_installed(monkeypatch):
    monkeypatch.setattr(environment, "entry_points", lambda group: [])
    found = environment.check_versions()
    assert ["plugin 'paec' is not installed" in problem for problem in found] == [True, True]


def test_plugin_switched_off(monkeypatch):
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    assert "VERL_USE_EXTERNAL_PLUGINS=none" in environment.check_versions()[0]
