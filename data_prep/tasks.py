"""The tasks for which `data_prep.tiny` creates data and a warm-started model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data_prep import countdown, tiny_model, word_problems

Line = dict[str, Any]
"""A line of warm_start.jsonl: `split` ("train" or "held_out") and the task's own fields."""


@dataclass(frozen=True)
class Task:
    """What the tiny model needs to know about a task.

    write: (folder, train, validation, seed, progress) writes train.parquet, validation.parquet and warm_start.jsonl.
    prompts: the user turns of a line that have the same responses; the first one is used for measurements.
    responses: the correct responses of a line.
    score: score of a response to a line, 0 or 1.
    steps, batch_size, peak_lr: settings of the warm start.
    max_response: tokens that are sampled when the warm start is measured.
    merges: number of the tokenizer's merges, learned from the task's text; with 0 every byte is a token.
    initializer_range: standard deviation of the initial weights.
    """

    write: Callable[..., str]
    prompts: Callable[[Line], list[str]]
    responses: Callable[[Line], list[str]]
    score: Callable[[Line, str], float]
    steps: int
    batch_size: int
    peak_lr: float
    max_response: int
    merges: int
    initializer_range: float


TASKS = {
    "countdown": Task(
        write=countdown.write,
        prompts=countdown.prompts,
        responses=lambda line: line["traces"],
        score=countdown.score,
        steps=1800,
        # At the same number of examples (38,400) and so the same time, batches of 128 / 64 / 32 / 16 end at a held-out
        # mean score of 0.17 / 0.26 / 0.32 / 0.30 (one seed, initializer_range 0.06; the noise is about 0.03).
        batch_size=32,
        peak_lr=2e-3,
        max_response=28,  # the longest correct trace has 22 and its <|im_end|>
        merges=0,
        initializer_range=tiny_model.INITIALIZER_RANGE,
    ),
    "word_problems": Task(
        write=word_problems.write,
        prompts=lambda line: [line["prompt"]],
        responses=lambda line: line["solutions"],
        score=lambda line, response: word_problems.score(response, line["answer"]),
        steps=1200,
        batch_size=16,
        peak_lr=4e-3,
        max_response=72,
        merges=400,
        initializer_range=0.08,
    ),
}
