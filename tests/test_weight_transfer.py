"""The gloo checkpoint engine: what arrives is what was sent, bit by bit, twice in a row."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from weight_transfer_worker import ACTORS, RECEIVERS, weights


def test_receivers_get_every_weight(tmp_path):
    ranks = ACTORS + RECEIVERS
    worker = Path(__file__).with_name("weight_transfer_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"]
    env = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(worker), str(tmp_path)], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]
    for transfer in range(2):
        sent = weights(transfer)
        for rank in range(ACTORS):  # the rank outside the group takes part in making the weights
            assert torch.load(tmp_path / f"{transfer}-{rank}.pt") == list(sent)
        for rank in range(ACTORS, ranks):
            arrived = torch.load(tmp_path / f"{transfer}-{rank}.pt")
            assert list(arrived) == list(sent)
            for name, weight in sent.items():
                assert arrived[name].dtype == weight.dtype and torch.equal(arrived[name], weight), name
