"""The collective over all ranks: two processes, a wrong interface, a hang."""

from __future__ import annotations

import os
import signal
import time

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
