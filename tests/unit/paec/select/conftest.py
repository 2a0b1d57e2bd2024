"""A run folder with a training file and the counts of its prompts, without a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from data_prep.contract import write_parquet
from recipe.paec.run import prompt_record


def row(index: int, **extra) -> dict:
    """A row whose prompt and reference follow from its index."""
    return {
        "data_source": "gsm8k",
        "prompt": [{"role": "user", "content": f"What is {index} + 1?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(index + 1)},
        "extra_info": {"split": "train", "index": index, "template": "boxed", "problem": f"{index} + 1", **extra},
    }


@pytest.fixture
def run_of(tmp_path):
    """run_of(history, ...) -> a run: how many of 4 responses to row i were right in each epoch, None: not seen."""

    def make(history: Sequence[Sequence[int | None]], batch: int = 4, filtered: bool = False) -> Path:
        run, file = tmp_path / "run", tmp_path / "data" / "train.parquet"
        run.mkdir()
        write_parquet([row(index) for index in range(len(history))], file)
        data = {"train_files": [str(file)], "train_batch_size": batch}
        config = {"data": data, "algorithm": {"filter_groups": {"enable": filtered}}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        for epoch in range(max(map(len, history))):
            seen = {("gsm8k", i): (of[epoch], 4) for i, of in enumerate(history) if epoch < len(of)}
            counts = {key: (right, n) for key, (right, n) in seen.items() if right is not None}
            prompt_record.append(run, epoch + 1, epoch, counts)
        return run

    return make
