"""The prompts of a step with their responses and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from recipe.grading.pool import Verdict
from recipe.lab.policy import Prompts
from recipe.lab.sampling import Sampled
from recipe.lab.task import Problem


@dataclass(frozen=True)
class Batch:
    """P prompts with n responses each; B = P n rows in the order of the prompts."""

    problems: list[Problem]
    """P."""
    prompts: Prompts
    names: list[str]
    """P names of the prompts, as in the pipeline's queue: `<step>-<place>`."""
    sampled: Sampled
    temperatures: Tensor
    """[P] that the responses were drawn at, 0 for the run's own."""
    verdicts: list[Verdict]
    """B."""

    @property
    def scores(self) -> Tensor:
        """[P, n] graded scores, 0 or 1."""
        return torch.tensor([float(v.correct) for v in self.verdicts]).view(len(self.problems), -1)


def chosen(batch: Batch, keep: Tensor) -> Batch:
    """The prompts where `keep` [P] is true."""
    if keep.all():
        return batch
    rows, n = torch.nonzero(keep)[:, 0].tolist(), batch.sampled.tokens.shape[1]
    sampled = Sampled(*(values[keep] for values in (batch.sampled.tokens, batch.sampled.inside, batch.sampled.logits)))
    return Batch(
        problems=[batch.problems[row] for row in rows],
        prompts=batch.prompts[keep],
        names=[batch.names[row] for row in rows],
        sampled=sampled,
        temperatures=batch.temperatures[keep],
        verdicts=[verdict for row in rows for verdict in batch.verdicts[row * n : (row + 1) * n]],
    )


def together(parts: Sequence[Batch]) -> Batch:
    """The prompts of all parts."""
    if len(parts) == 1:
        return parts[0]
    length = max(part.sampled.tokens.shape[-1] for part in parts)

    def join(name: str) -> Tensor:
        values = [getattr(part.sampled, name) for part in parts]
        return torch.cat([pad(v, (0, 0) * (v.dim() - 3) + (0, length - v.shape[2])) for v in values])

    return Batch(
        problems=[problem for part in parts for problem in part.problems],
        prompts=Prompts.of([problem.ids for part in parts for problem in part.problems]),
        names=[name for part in parts for name in part.names],
        sampled=Sampled(join("tokens"), join("inside"), join("logits")),
        temperatures=torch.cat([part.temperatures for part in parts]),
        verdicts=[verdict for part in parts for verdict in part.verdicts],
    )
