"""Training prompts ranked by how much their accuracy changed from epoch to epoch (arXiv 2504.20571)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_prep.contract import ContractError, validate_rows
from recipe.paec.common.errors import UserError
from recipe.paec.run.prompt_record import PROMPTS_FILE, Counts, Key
from recipe.paec.scoring.difficulty import label_of

SCORE = "historical_deviation"
"""Name of the score in files."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of the training files."""

    file: str
    row: int
    """Its first row in the file."""
    key: Key
    """Data source and index of that row."""
    epochs: Mapping[int, tuple[int, int]]
    """Epoch -> (right responses, responses); empty if the run never trained on it."""

    @property
    def accuracies(self) -> list[Fraction]:
        """Accuracy in each epoch, in order."""
        return [Fraction(*self.epochs[epoch]) for epoch in sorted(self.epochs)]

    @property
    def accuracy(self) -> float | None:
        """Share of right responses over all epochs; None without any."""
        right, responses = (sum(of) for of in zip(*self.epochs.values(), strict=True)) if self.epochs else (0, 0)
        return right / responses if responses else None


def variance(values: Sequence[Fraction]) -> Fraction:
    """Population variance of one value or more, exact: equal histories are ties."""
    mean = sum(values, Fraction()) / len(values)
    return sum(((value - mean) ** 2 for value in values), Fraction()) / len(values)


def historical_deviation(accuracies: Sequence[Fraction]) -> float:
    """Population standard deviation of a prompt's accuracies over the epochs."""
    return math.sqrt(variance(accuracies))


def ranked(prompts: Iterable[Prompt], least: int) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts by falling deviation, rank 1 first, and those that were seen in fewer than `least` epochs.

    Equal deviations are in the order of the prompts.
    """
    prompts = list(prompts)
    enough = [prompt for prompt in prompts if len(prompt.epochs) >= least]
    return sorted(enough, key=lambda p: -variance(p.accuracies)), [p for p in prompts if len(p.epochs) < least]


def entry(prompt: Prompt, rank: int | None) -> dict[str, Any]:
    """What is written about a prompt; rank and score are None for one that was seen in too few epochs."""
    source, index = prompt.key
    return {
        "rank": rank,
        SCORE: None if rank is None else historical_deviation(prompt.accuracies),
        "accuracy": prompt.accuracy,
        "difficulty": None if prompt.accuracy is None else label_of(prompt.accuracy),
        "epochs": {str(epoch): list(prompt.epochs[epoch]) for epoch in sorted(prompt.epochs)},
        "data_source": source,
        "index": index,
        "file": prompt.file,
        "row": prompt.row,
    }


def read_rows(files: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each training file; UserError if one is missing or breaks the row contract."""
    found = {}
    for file in files:
        path = Path(file).expanduser()
        try:
            validate_rows(path)
        except FileNotFoundError:
            raise UserError(
                f"{file}, of the run's data.train_files: does not exist here: restore it, or call this in the folder "
                "in which the run was started"
            ) from None
        except ContractError as error:
            raise UserError(f"data.train_files of the run: {error}") from None
        found[file] = pq.ParquetFile(path).read().to_pylist()
    return found


def prompts_of(rows: Mapping[str, Sequence[Mapping[str, Any]]], counts: Mapping[Key, Counts]) -> list[Prompt]:
    """The different prompts of the files in their order, with what the run counted.

    Rows with the same data source, prompt and reference are one prompt.

    Args:
        rows: file -> its rows.
        counts: of `run.prompt_record.read`.

    Raises:
        UserError: two prompts share data source and index, so the run counted them together; or a prompt that the run
            trained on is in no file.
    """
    first: dict[str, tuple[str, int, Key]] = {}
    content_of: dict[Key, str] = {}
    for file, of_file in rows.items():
        for number, row in enumerate(of_file):
            key = str(row["data_source"]), int(row["extra_info"]["index"])
            content = json.dumps([key[0], row["prompt"], row["reward_model"]["ground_truth"]], default=str)
            if content_of.setdefault(key, content) != content:
                raise UserError(
                    f"{file}, row {number}, field extra_info.index: {key[1]} is also that of another prompt of "
                    f"{key[0]}, and the run counted them together: give every row its own index, and train again"
                )
            first.setdefault(content, (file, number, key))
    found: dict[str, Counts] = {content: {} for content in first}
    for key, of_key in counts.items():
        if key not in content_of:
            raise UserError(
                f"{PROMPTS_FILE}: the run trained on {key[0]}, index {key[1]}, which is not in {', '.join(rows)}: "
                "restore the training file of the run"
            )
        epochs = found[content_of[key]]
        for epoch, (right, responses) in of_key.items():
            before = epochs.get(epoch, (0, 0))
            epochs[epoch] = before[0] + right, before[1] + responses
    return [Prompt(file, row, key, found[content]) for content, (file, row, key) in first.items()]


def chosen(ranking: Sequence[Prompt], few: Sequence[Prompt], ranks: Sequence[int], least: int) -> list[Prompt]:
    """The prompts of these ranks.

    Raises:
        UserError: there are fewer ranks, because there are fewer prompts or they were seen in too few epochs.
    """
    if max(ranks) <= len(ranking):
        return [ranking[rank - 1] for rank in ranks]
    seen = Counter(len(prompt.epochs) for prompt in (*ranking, *few))
    shown = ", ".join(f"{number} in {epochs}" for epochs, number in sorted(seen.items()))
    raise UserError(
        f"rank {max(ranks)}: only {len(ranking)} prompts were seen in {least} epochs or more (prompts by epochs: "
        f"{shown}): train the first run for more epochs (trainer.total_training_steps), or choose other ranks"
    )
