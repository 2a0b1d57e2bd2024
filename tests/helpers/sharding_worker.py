"""Run under torchrun by test_sharding.py: token statistics of a vocabulary that is split over the ranks.

`python sharding_worker.py WORK`: reads `WORK/cases.pt`, a list of cases; every rank writes what it got to
`WORK/<name>-<rank>.pt`: statistics, gradient of its columns, the collectives it took part in, or the error.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from paec_loss import token_statistics
from paec_loss.backends import torch_backend


class Recorder:
    """Counts collectives and what they carry, by wrapping torch.distributed's own functions."""

    def __init__(self):
        self.calls: list[tuple[str, int]] = []
        for name in ("all_reduce", "all_gather"):
            setattr(dist, name, self._wrapped(name, getattr(dist, name)))

    def _wrapped(self, name, function):
        def call(first, *args, **kwargs):
            sent = first if isinstance(first, torch.Tensor) else args[0]
            self.calls.append((name, sent.numel()))
            return function(first, *args, **kwargs)

        return call


def run(case: dict, mesh, recorder: Recorder) -> dict:
    rank, size = dist.get_rank(), dist.get_world_size()
    logits, labels, temperature = case["logits"], case["labels"], case["temperature"]
    widths = case["widths"] or [len(part) for part in torch.arange(logits.shape[-1]).chunk(size)]
    widths += [0] * (size - len(widths))
    mine = logits.split(widths, dim=-1)[rank].clone().requires_grad_()
    if rank in case["rows"]:  # a rank that sees other rows, or other arguments
        keep = case["rows"][rank]
        mine, labels, temperature = mine[:keep].detach().requires_grad_(), labels[:keep], temperature[:keep]
    top_p = case["top_p"][min(rank, len(case["top_p"]) - 1)]
    labels = labels + case["shift_labels"].get(rank, 0)
    if case["dtensor"]:
        placements = [Replicate(), Shard(logits.dim() - 1)]
        leaf = mine
        mine = DTensor.from_local(leaf * 1.0, mesh, placements, shape=logits.shape, stride=logits.stride())
        arguments = {}
    else:
        leaf, mine = mine, mine * 1.0
        arguments = {"group": dist.group.WORLD}
    recorder.calls.clear()
    try:
        statistics = token_statistics(
            mine, labels, top_p=top_p, temperature=temperature, inplace_backward=case["inplace"], **arguments
        )
    except (ValueError, TypeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    forward = list(recorder.calls)
    weight = torch.linspace(32, 96, labels.numel(), dtype=torch.float64).round().div(64).reshape(labels.shape)
    names = ("log_prob", "entropy", "nucleus_entropy")
    total = sum((i + 1) * (weight * getattr(statistics, name)).sum() for i, name in enumerate(names))
    total.backward()
    values = {f.name: getattr(statistics.detach(), f.name) for f in fields(statistics)}
    return {
        "error": None,
        "statistics": values,
        "gradient": leaf.grad,
        "forward": forward,
        "backward": recorder.calls[len(forward) :],
    }


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    work = Path(sys.argv[1])
    mesh = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("rows", "vocabulary"))
    recorder = Recorder()
    for case in torch.load(work / "cases.pt"):
        for name, value in case["limits"].items():
            setattr(torch_backend, name, value)
        result = run(case, mesh, recorder)
        torch.save(result, work / f"{case['name']}-{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
