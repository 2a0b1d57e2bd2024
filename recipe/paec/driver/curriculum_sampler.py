"""A curriculum in training: prompts in stages, easiest first, by the scores that `recipe.paec.curriculum` wrote."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from omegaconf import DictConfig
from torch.utils.data import Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

from recipe.paec.common.seeds import response_seed
from recipe.paec.config.scored_files import COMMAND, SCORE, too_few


class CurriculumSampler(Sampler[int]):
    """Row numbers in training order, an integer number of batches per stage; the last stage is endless.

    Rows are sorted by score, ties by number. Within a stage they come in passes, each in its own order (seed, stage,
    pass) and without the remainder that fills no batch, so that no row is twice in a step. The only state is the
    position: a resumed loader skips what it had drawn.

    Args:
        scores: score of every row, nats.
        stages: number of stages N.
        steps: steps of the run; stage s has those from s/N to (s+1)/N of them.
        batch_size: rows per step.
        seed: seed of the run.

    Raises:
        ValueError: a row without score, or a stage with fewer rows than a batch.
    """

    def __init__(self, scores: Sequence[float | None], stages: int, steps: int, batch_size: int, seed: int) -> None:
        rows = len(scores)
        if missing := sum(score is None for score in scores):
            raise ValueError(f"{missing} of {rows} training rows have no extra_info.{SCORE}: write it with {COMMAND}")
        if rows // stages < batch_size:
            raise ValueError(too_few(rows, stages, batch_size))
        order = sorted(range(rows), key=lambda row: (scores[row], row))
        self.stages = [order[rows * s // stages : rows * (s + 1) // stages] for s in range(stages)]
        self.steps, self.batch_size, self.seed = steps, batch_size, seed

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        count = len(self.stages)
        for stage in range(count):
            steps = self.steps * (stage + 1) // count - self.steps * stage // count
            endless = stage == count - 1  # asynchronous trainers draw ahead of the last step
            for batch in itertools.islice(self._batches(stage), None if endless else steps):
                yield from batch

    def _batches(self, stage: int) -> Iterator[list[int]]:
        rows = self.stages[stage]
        for number in itertools.count():
            generator = torch.Generator().manual_seed(response_seed(self.seed, "curriculum", stage, number))
            order = [rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()]
            for begin in range(0, len(rows) - self.batch_size + 1, self.batch_size):
                yield order[begin : begin + self.batch_size]


def staged(loader: StatefulDataLoader, config: DictConfig) -> StatefulDataLoader:
    """verl's training data loader in the order of the curriculum; unchanged without one."""
    section = config.data.curriculum
    if section is None:
        return loader
    scores = [extra.get(SCORE) for extra in loader.dataset.dataframe["extra_info"]]
    steps, batch_size = config.trainer.total_training_steps, config.data.train_batch_size
    return StatefulDataLoader(
        dataset=loader.dataset,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        sampler=CurriculumSampler(scores, section.stages, steps, batch_size, config.seed),
        drop_last=True,
    )
