"""Run under torchrun by test_weight_transfer.py, four ranks: two actor workers, of which one sends, and two receivers.

`python weight_transfer_worker.py WORK`: two transfers, as verl's manager runs them; every receiver writes what came in
each to `WORK/<transfer>-<rank>.pt`, the actor's ranks how many weights they made.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import torch
import torch.distributed as dist

ACTORS, RECEIVERS = 2, 2


def weights(transfer: int) -> dict[str, torch.Tensor]:
    """Of several dtypes and shapes; one is not contiguous, one has no dimension."""
    generator = torch.Generator().manual_seed(transfer)
    matrix = torch.randn(300, 70, generator=generator)
    return {
        "float32": matrix,
        "transposed": matrix.t(),
        "bfloat16": matrix.bfloat16(),
        "int64": torch.arange(10) * (transfer + 1),
        "scalar": torch.tensor(0.5 + transfer),
    }


async def received(engine) -> dict[str, torch.Tensor]:
    return {name: weight async for name, weight in engine.receive_weights()}


def main() -> None:
    import verl  # noqa: F401  (loads the plugin)

    from recipe.paec.rollout.gloo_transfer import GlooCheckpointEngine

    dist.init_process_group("gloo")
    work, rank = Path(sys.argv[1]), dist.get_rank()
    engine = GlooCheckpointEngine(bucket_size=1, is_master=rank == 0)
    for transfer in range(2):
        metadata = [None] * (ACTORS + RECEIVERS)
        dist.all_gather_object(metadata, engine.prepare())
        actor, rollout = engine.build_topology(ACTORS, RECEIVERS, metadata)
        mine, index = (actor, rank) if rank < ACTORS else (rollout, rank - ACTORS)
        engine.init_process_group(**{key: values[index] for key, values in mine.items()})
        if rank < ACTORS:
            made = []
            asyncio.run(engine.send_weights((made.append(name) or (name, w) for name, w in weights(transfer).items())))
            torch.save(made, work / f"{transfer}-{rank}.pt")
        else:
            torch.save(asyncio.run(received(engine)), work / f"{transfer}-{rank}.pt")
        engine.finalize()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
