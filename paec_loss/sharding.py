"""A vocabulary that is split over the ranks of a process group, and the few numbers that the ranks exchange."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class VocabularyShard:
    """This rank's columns of the logits; without a group, all of them, and every exchange returns its input.

    With a group, every method is a collective: all ranks must call it. They do, because their decisions depend only on
    exchanged numbers. Only a few numbers per token are exchanged, never a part of the vocabulary.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, widths: tuple[int, ...] = (), rank: int = 0):
        self.group = group
        self.widths = widths
        self.offset = sum(widths[:rank])

    @classmethod
    def of(
        cls, group: dist.ProcessGroup, logits: Tensor, labels: Tensor, settings: list[float], error: Exception | None
    ) -> VocabularyShard:
        """Exchange the widths of the shards [..., V of the rank], in the order of the ranks.

        `settings` are numbers that must be equal everywhere; `error` is an error in this rank's arguments. It is raised
        on this rank, and a ValueError on the others; likewise if labels or settings differ. A rank that raised alone
        would leave the others waiting.
        """
        flat = labels.reshape(-1).long()
        place = torch.arange(1, flat.numel() + 1, device=labels.device)
        width = logits.shape[-1] if logits.dim() else 0
        checks = [flat.numel(), int(flat.sum()), int((flat * place).sum())]
        mine = torch.tensor([width, error is not None, *checks, *settings], dtype=torch.float64, device=labels.device)
        table = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
        dist.all_gather(table, mine, group=group)
        if error is not None:
            raise error
        bad = [rank for rank, row in enumerate(table) if row[1]]
        if bad:
            raise ValueError(f"group: rank {bad[0]} was called with bad arguments; see its error message")
        counts = [int(row[2]) for row in table]
        if len(set(counts)) > 1:
            raise ValueError(
                f"group: the ranks have {counts} rows; all must have the same rows, and each its own columns"
            )
        if any(not torch.equal(row[2:], mine[2:]) for row in table):
            raise ValueError(
                "group: labels, temperature or top_p differ between the ranks; they must be the same on all"
            )
        return cls(group, tuple(int(row[0]) for row in table), dist.get_rank(group))

    def vocab_size(self, logits: Tensor) -> int:
        """V of the full vocabulary."""
        return sum(self.widths) if self.group else logits.shape[-1]

    def widest(self, logits: Tensor) -> int:
        """The largest number of columns of any rank."""
        return max(self.widths) if self.group else logits.shape[-1]

    def local_labels(self, labels: Tensor, width: int) -> Tensor:
        """Labels [T] counted within this shard; -1 where a label is elsewhere or negative."""
        if not self.group:
            return labels.clamp_min(-1)
        local = labels - self.offset
        return torch.where((labels >= 0) & (local >= 0) & (local < width), local, -1)

    def gather(self, values: Tensor) -> Tensor:
        """[...] -> [N, ...], the ranks' values one after the other."""
        if not self.group:
            return values[None]
        values = values.contiguous()
        parts = [torch.empty_like(values) for _ in self.widths]
        dist.all_gather(parts, values, group=self.group)
        return torch.stack(parts)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, values: Tensor) -> Tensor:
        """Maximum over the ranks."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Tensor, operation) -> Tensor:
        if self.group:
            values = values.contiguous()  # a strided tensor would silently be reduced only in part
            dist.all_reduce(values, operation, group=self.group)
        return values

    def gather_pairs(self, pairs: Tensor) -> Tensor:
        """float64 [2, n], n different on every rank -> all of them, [2, sum of n]."""
        if not self.group:
            return pairs
        counts = self.gather(torch.tensor(pairs.shape[1], device=pairs.device))[:, None]
        padded = pairs.new_zeros(2, int(counts.max()))
        padded[:, : pairs.shape[1]] = pairs
        everything = self.gather(padded).transpose(0, 1)
        return everything[:, torch.arange(padded.shape[1], device=pairs.device) < counts]


WHOLE = VocabularyShard()
"""No shard: one rank has the full vocabulary."""
