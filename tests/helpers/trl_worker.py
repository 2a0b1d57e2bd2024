"""One of two ranks of a TRL trainer: the gradient of every case of `trl_cases.acting`, and two steps of training."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import trl_cases as cases


def part(batch: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """The rank's half of a generation, padded to its own longest response."""
    half = slice(4 * rank, 4 * rank + 4)
    mine = {name: value if value.dim() == 0 else value[half] for name, value in batch.items()}
    length = int(mine["completion_mask"].sum(-1).max())
    wide = [name for name in mine if name.startswith("completion") or name.endswith("logps")]
    return mine | {name: mine[name][:, :length] for name in wide}


def run(work: Path) -> None:
    for name, methods in cases.acting().items():
        made = cases.trainer(work / "gradient", methods, ddp_backend="gloo", per_device_train_batch_size=2)
        rank = made.accelerator.process_index
        loss, gradient = cases.gradient(made, part(cases.generated(), rank))
        mean = torch.tensor([loss])
        for value in (mean, *gradient.values()):
            dist.all_reduce(value)
            value /= 2
        if rank == 0:
            torch.save((mean.item(), gradient), work / f"{name}.pt")
    made = cases.trainer(work / "trained", "paec", ddp_backend="gloo", per_device_train_batch_size=2)
    made.train()
    norm = sum(parameter.detach().double().square().sum() for parameter in made.model.parameters()).item()
    state = made._trackers["paec"].state_dict() | {"norm": norm}
    (work / f"trained-{rank}.json").write_text(json.dumps(state))


def main(work: Path) -> None:
    torch.set_num_threads(1)
    run(work)
    # DDP's reducers hold the process group. If one of them frees it, it waits for gloo's thread and holds the GIL,
    # and that thread may wait for the GIL. So the trainers go first.
    gc.collect()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
