"""The gloo checkpoint engine: what arrives is what was sent, bit by bit, twice in a row."""

from __future__ import annotations

import torch
from ranks import torchrun
from weight_transfer_worker import ACTORS, RECEIVERS, weights


def test_receivers_get_every_weight(tmp_path):
    ranks = ACTORS + RECEIVERS
    torchrun("weight_transfer_worker.py", ranks, tmp_path, timeout=300)
    for transfer in range(2):
        sent = weights(transfer)
        for rank in range(ACTORS):  # the rank outside the group takes part in making the weights
            assert torch.load(tmp_path / f"{transfer}-{rank}.pt") == list(sent)
        for rank in range(ACTORS, ranks):
            arrived = torch.load(tmp_path / f"{transfer}-{rank}.pt")
            assert list(arrived) == list(sent)
            for name, weight in sent.items():
                assert arrived[name].dtype == weight.dtype and torch.equal(arrived[name], weight), name
