"""Counts the right responses to each prompt of a step for the run's `prompts.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transfer_queue import KVBatchMeta

from recipe.paec.common.queue_keys import parts_of
from recipe.paec.driver import queue_io
from recipe.paec.run import prompt_record
from recipe.paec.run.prompt_record import Key

FIELDS = ["data_source", "index", "extra_fields"]
"""Fields of a response that are fetched: its row, and what the reward function returned."""


class PromptRecorder:
    """Collects the verdicts of a step's responses, from one log-prob pass or several, and appends them as one line."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._counts: dict[Key, tuple[int, int]] = {}
        self.sources: list[str] = []
        """Data source of each response of the last `take`, in its order."""

    def take(self, batch: KVBatchMeta) -> list[dict[str, Any]]:
        """Count the responses of `batch`; returns what the reward function said about each, in its order.

        Padding does not count, and a response of several outputs counts once.
        """
        data = queue_io.get(batch, FIELDS)
        infos = [extra["reward_extra_info"] for extra in data["extra_fields"]]
        self.sources = [str(source) for source in data["data_source"]]
        columns = (batch.keys, batch.tags, self.sources, data["index"], infos)
        for key, tag, source, index, info in zip(*columns, strict=True):
            if not tag.get("is_padding", False) and parts_of(key)[2] == 0:
                row = source, int(index)
                right, responses = self._counts.get(row, (0, 0))
                self._counts[row] = right + int(info["acc"] == 1), responses + 1
        return infos

    def write(self, step: int, epoch: int) -> None:
        """Append what was counted since the last call as the line of `step`."""
        prompt_record.append(self._run, step, epoch, self._counts)
        self._counts = {}
