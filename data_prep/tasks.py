"""The tasks and models for which `data_prep.tiny` creates data and a warm-started model."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INITIALIZER_RANGE = 0.02
"""Standard deviation of the initial weights, as transformers has it for Qwen2."""

MODELS = ("qwen2", "llama")
"""Names of `data_prep.tiny_model.SHAPES`, which takes seconds to import."""

Line = dict[str, Any]
"""A line of warm_start.jsonl: `split` ("train" or "held_out") and the task's own fields."""


def default_threads() -> int:
    """Threads for the warm start: two, or one on a single core. The matrices are too small for more to help."""
    return min(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class Task:
    """What the tiny model needs to know about a task.

    module: has, and is imported when one of them is used,
        write(folder, train, validation, seed, progress), which writes train.parquet, validation.parquet and
        warm_start.jsonl;
        prompts(line), the user turns that have the same responses; the first one is used for measurements;
        responses(line), the correct responses of a line;
        score(line, response), 0 or 1.
    steps, batch_size, peak_lr: settings of the warm start; the learning rate is that of a model of hidden size 128.
    max_response: tokens that are sampled when the warm start is measured.
    merges: number of the tokenizer's merges, learned from the task's text; with 0 every byte is a token.
    initializer_range: standard deviation of the initial weights.
    """

    module: str
    steps: int
    batch_size: int
    peak_lr: float
    max_response: int
    merges: int
    initializer_range: float

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The module's function."""
        if name not in ("write", "prompts", "responses", "score"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.module), name)


TASKS = {
    "countdown": Task(
        module="data_prep.countdown",
        steps=1800,
        # At the same number of examples (38,400) and so the same time, batches of 128 / 64 / 32 / 16 end at a held-out
        # mean score of 0.17 / 0.26 / 0.32 / 0.30 (one seed, initializer_range 0.06; the noise is about 0.03).
        batch_size=32,
        peak_lr=2e-3,
        max_response=28,  # the longest correct trace has 22 and its <|im_end|>
        merges=0,
        initializer_range=INITIALIZER_RANGE,
    ),
    "countdown_four": Task(
        module="data_prep.countdown_four",
        steps=1800,
        batch_size=32,
        peak_lr=2e-3,
        max_response=36,  # the longest correct trace has 34, and its <|im_end|>
        merges=0,
        initializer_range=INITIALIZER_RANGE,
    ),
    "word_problems": Task(
        module="data_prep.word_problems",
        steps=1200,
        batch_size=16,
        peak_lr=4e-3,
        max_response=72,
        merges=400,
        initializer_range=0.08,
    ),
}
