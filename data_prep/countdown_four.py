"""Countdown with four numbers: the quick start's task with a longer search.

There are 20,000 problems, and 36 times as many ways to combine their numbers as with three. The warm start practises on
PRACTICE of them, so most training prompts are new to the policy.

    python -m data_prep.tiny --task countdown_four --output DIR
"""

from __future__ import annotations

from pathlib import Path

from data_prep import countdown
from data_prep.countdown import prompts, responses, score

__all__ = ["PRACTICE", "prompts", "responses", "score", "write"]

PRACTICE = 4_000
"""Problems of the warm start."""


def write(output: str | Path, train: int = 2048, validation: int = 100, seed: int = 0, progress: bool = False) -> str:
    """Write the three files of `data_prep.countdown.write` for problems with four numbers."""
    return countdown.write(output, train, validation, seed, progress, numbers=4, practice=PRACTICE)
