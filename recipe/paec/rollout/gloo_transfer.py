"""Weights from the actor to rollout replicas on separate devices, through gloo: verl's checkpoint engine `gloo`.

verl has engines for NCCL and for RDMA libraries, none for a machine without GPU. Imported in every process that sends
or receives through `actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module`, whatever the engine; the
receiving ones load no model and so would not import `server_adapter`, the sending end of the sync with vLLM.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from datetime import timedelta

import ray
import torch
from torch.distributed import ProcessGroupGloo, TCPStore
from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry

from recipe.paec.rollout import server_adapter  # noqa: F401  (registers it)

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others; one that died must not make them hang."""


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """Actor rank 0 broadcasts one tensor after the other to all rollout workers; names and shapes go through the store.

    Args:
        bucket_size: required by verl, not used: a tensor is sent in one piece.
        is_master: whether this is actor rank 0, which opens the store.
    """

    def __init__(self, bucket_size: int, is_master: bool = False):
        self.is_master = is_master
        self.store: TCPStore | None = None
        self.group: ProcessGroupGloo | None = None

    def prepare(self) -> tuple[str, int] | None:
        """On the master: open a store for this transfer; returns its address. None elsewhere."""
        if not self.is_master:
            return None
        host = ray.util.get_node_ip_address().strip("[]")
        self.store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        return host, self.store.port

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list
    ) -> tuple[dict[str, list], dict[str, list]]:
        """Rank 0 is the actor's; the actor's other ranks (-1) stay outside; the rollout workers follow."""
        world_size = 1 + rollout_world_size

        def arguments(ranks: list[int]) -> dict[str, list]:
            count = len(ranks)
            return {"rank": ranks, "world_size": [world_size] * count, "address": [metadata[0]] * count}

        return arguments([0] + [-1] * (actor_wg_world_size - 1)), arguments(list(range(1, world_size)))

    def init_process_group(self, rank: int, world_size: int, address: tuple[str, int]) -> None:
        """Join the group of this transfer, unless `rank` is -1."""
        if rank < 0:
            return
        if self.store is None:
            self.store = TCPStore(*address, is_master=False, timeout=TIMEOUT)
        self.group = ProcessGroupGloo(self.store, rank, world_size, TIMEOUT)

    def finalize(self) -> None:
        """Leave the group."""
        self.group = self.store = None

    async def send_weights(
        self, weights: Iterable[tuple[str, torch.Tensor]], global_steps: int | None = None
    ) -> dict[str, float]:
        """Send every (name, tensor) of `weights`; ranks outside the group only take part in producing them."""
        count = 0
        for count, (name, weight) in enumerate(weights, start=1):
            if self.group is not None:
                header = {"name": name, "shape": list(weight.shape), "dtype": str(weight.dtype).removeprefix("torch.")}
                self.store.set(str(count), json.dumps(header))
                await asyncio.to_thread(self._broadcast, weight.detach().cpu().contiguous())
        if self.group is not None:
            self.store.set(str(count + 1), json.dumps(None))
            await asyncio.to_thread(self._broadcast, torch.zeros(1))  # nobody leaves before all have received the end
        return {}

    async def receive_weights(self, global_steps: int | None = None) -> AsyncGenerator[tuple[str, torch.Tensor]]:
        """Yields (name, tensor) in the order they are sent."""
        count = 0
        while True:
            count += 1
            header = json.loads(await asyncio.to_thread(self.store.get, str(count)))
            if header is None:
                await asyncio.to_thread(self._broadcast, torch.zeros(1))
                return
            weight = torch.empty(header["shape"], dtype=getattr(torch, header["dtype"]))
            await asyncio.to_thread(self._broadcast, weight)
            yield header["name"], weight

    def _broadcast(self, tensor: torch.Tensor) -> None:
        self.group.broadcast(tensor, 0).wait()
