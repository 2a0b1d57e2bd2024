"""The collective over all ranks: two processes, a wrong interface, a hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from recipe.paec.doctor import collective


def test_collective_of_two_processes(tiny_config):
    (check,) = collective.Collective(tiny_config("cluster.gpus_per_node=2")).result()
    assert check.errors == () and check.found.startswith("2 rank(s), ")


def test_collective_names_the_interface(tiny_config):
    config = tiny_config("cluster.gpus_per_node=2", "cluster.env.GLOO_SOCKET_IFNAME=nowhere0")
    (check,) = collective.Collective(config).result()
    (problem,) = check.errors
    assert problem.startswith("the collective failed on 2 of 2 ranks") and "GLOO_SOCKET_IFNAME=nowhere0" in problem


def test_collective_does_not_wait_for_ever(tmp_path):
    started = time.monotonic()
    with pytest.raises(RuntimeError):
        collective.all_reduce(0, 2, f"file://{tmp_path / 'store'}", "cpu", seconds=2)
    assert time.monotonic() - started < 20
    assert not torch.distributed.is_initialized()


def test_collective_that_hangs(tiny_config):
    """The process itself hangs."""
    running = collective.Collective(tiny_config())
    os.kill(running._process.pid, signal.SIGSTOP)
    (check,) = running.result(limit=1)
    assert "the collective over all ranks did not finish within 1 s: set the interface" in check.errors[0]
    assert running._process.poll() is not None


def test_the_collective_starts_without_rocms_variable(tiny_config, monkeypatch):
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    running = collective.Collective(tiny_config("cluster.platform=cuda"))
    there = Path(f"/proc/{running._process.pid}/environ").read_bytes().split(b"\0")
    running.end()
    assert b"CUDA_VISIBLE_DEVICES=0" in there and b"ROCR_VISIBLE_DEVICES=0" not in there


def test_a_rank_on_ray_has_imported_torch_before_its_limit_begins():
    """An import from a slow disk is no fault of the network."""
    program = """
import sys
from recipe.paec.doctor.collective import Rank
before = "torch" in sys.modules
Rank("{}")
print(before, "torch.distributed" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
