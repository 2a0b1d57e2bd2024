"""Run under torchrun by test_stack.py: the loop of docs/methods.md, with the responses split over data-parallel ranks.

`python data_parallel_worker.py WORK`: reads the loop from `WORK/loop.py`; every rank writes what `trained` returns to
`WORK/<rank>.pt`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from paec_loss import Clip, MethodStack, Rollouts, Tokens, Update, token_statistics
from paec_loss.methods import METHODS
from paec_loss.stack import observed


def trained(
    loop: str,
    rank: int = 0,
    ranks: int = 1,
    gathered: Callable[[Tensor], Tensor] = lambda values: values,
    wrapped: Callable[[torch.nn.Module], torch.nn.Module] = lambda model: model,
) -> tuple[Tensor, float]:
    """(the weights of a linear policy after two steps of PAEC, the last coefficient of its term)."""
    torch.manual_seed(0)
    features, labels = torch.randn(8, 5, 6), torch.randint(32, (8, 5))
    response_mask = torch.arange(5) < torch.tensor([5, 3, 4, 5, 2, 5, 5, 1])[:, None]
    policy = wrapped(torch.nn.Linear(6, 32))
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    stack = MethodStack(
        [METHODS["paec"](anchor_steps=1, penalty="two_sided", rho_min=0.5, quantile_scope="mini_batch")]
    )
    trackers, mine = stack.trackers(), torch.arange(8).chunk(ranks)[rank]
    loop = loop.replace("torch.arange(8).split(2)", "mine.split(2)")
    loop = loop.replace("loss.backward()", "(ranks * loss).backward()")
    for step in (1, 2):
        with torch.no_grad():
            own = token_statistics(policy(features[mine]), labels[mine], top_p=stack.top_p)
        start = own.map(gathered)
        rollouts = Rollouts(start, response_mask, torch.arange(8) // 4, step, seed=0, tokens=labels)
        observed(trackers, rollouts)
        names = {
            "signals": {name: tracker.signal(step) for name, tracker in trackers.items()},
            "update": Update(step, 0, int(response_mask.sum()), stack.clip(Clip(0.2, 0.2, 3.0), step)),
            "advantages": torch.where(response_mask, torch.tensor([1.0, -1.0]).repeat(4)[:, None], 0.0),
            "policy": lambda rows: policy(features[rows]),
            "number": 8 * step + torch.arange(8),
            "values": None,
        }
        names |= {"stack": stack, "labels": labels, "response_mask": response_mask, "start": start, "mine": mine}
        names |= {"optimizer": optimizer, "ranks": ranks, "torch": torch, "replace": replace, "Tokens": Tokens}
        names |= {"token_statistics": token_statistics}
        exec(loop, names)
    weights = torch.cat([value.detach().flatten() for value in policy.parameters()])
    return weights, names["contexts"][0].coefficient


def _gathered(values: Tensor) -> Tensor:
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    work, rank = Path(sys.argv[1]), dist.get_rank()
    loop = (work / "loop.py").read_text(encoding="utf-8")
    found = trained(loop, rank, dist.get_world_size(), _gathered, DistributedDataParallel)
    torch.save(found, work / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
