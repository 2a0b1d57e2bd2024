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


@pytest.fixture
def programs(compose, monkeypatch, tmp_path):
    """programs(names, override ...): the check of a node where only these programs are, without CC and Python.h."""

    def check(names, *overrides):
        for name in names:
            (tmp_path / name).touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(environment.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
        return environment.compiler(compose("experiment=tiny_gpu", *overrides))

    return check


def test_triton_finds_its_compiler(programs, tmp_path):
    (tmp_path / "Python.h").touch()
    (problem,) = programs([]).errors
    assert problem.startswith("Triton needs a C compiler, and neither gcc nor clang is there: install gcc, or set +clu")
    assert programs(["clang"]).found == str(tmp_path / "clang")
    assert programs(["gcc"]).found == str(tmp_path / "gcc")
    (problem,) = programs([], "+cluster.env.CC=icx").errors
    assert "and CC=icx, which is not there" in problem
    assert programs(["icx"], "+cluster.env.CC=icx").found == str(tmp_path / "icx")


def test_triton_finds_the_headers(programs, tmp_path):
    check = programs(["gcc"])
    assert check.found == "missing" and check.errors[0].startswith(f"Triton needs {tmp_path}/Python.h, which is not")
