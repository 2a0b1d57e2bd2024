"""A data set and a scorer from outside the repository: through verl's reward manager, and in the real pipeline."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import numpy
import pytest
import torch
from pipeline_runs import REPOSITORY, finish, records, start

from data_prep.__main__ import main

PAGE = (REPOSITORY / "docs" / "scorers.md").read_text(encoding="utf-8")
WORDS = ["bread", "stone", "cloud", "river", "lemon", "tiger", "plant", "chair", "music", "sugar", "ocean", "green"]
WORDS += ["table", "night", "money", "paper", "house", "light", "train", "queen", "apple", "metal", "smoke", "wheel"]


def package(folder: Path) -> Path:
    """A folder with the scorer that the page shows, as my_pkg/my_module.py."""
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S) if "def score(" in block)
    assert len(code.splitlines()) <= 12
    (folder / "my_pkg").mkdir(parents=True)
    (folder / "my_pkg" / "__init__.py").write_text("")
    (folder / "my_pkg" / "my_module.py").write_text(code)
    return folder


def prepared(folder: Path, split: str, words: list[str]) -> Path:
    """Rows of a table of the user's, made by the command."""
    table = folder / f"{split}.jsonl"
    table.write_text("".join(json.dumps({"question": f"Spell {word}.", "answer": word}) + "\n" for word in words))
    command = ["rows", "--input", str(table), "--question", "question", "--answer", "answer", "--source", "spelling"]
    command += ["--template", "none", "--split", split, "--output", str(folder / "data")]
    assert main([*command, *(["--keep-duplicates"] if split == "train" else [])]) == 0
    return folder / "data" / f"{split}.parquet"


class Tokenizer:
    """One character a token."""

    def decode(self, ids, skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids))


def test_verls_reward_manager_scores_with_it(tmp_path, monkeypatch, compose):
    from tensordict import TensorDict
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    monkeypatch.setenv("PYTHONPATH", str(package(tmp_path / "mine")), prepend=os.pathsep)
    config = compose("reward.scorers.spelling=my_pkg.my_module:score")
    manager = load_reward_manager(config, Tokenizer())

    def rewarded(source: str, response: str, truth: str) -> dict:
        ids = torch.tensor([[ord(character) for character in response]])
        data = DataProto(
            batch=TensorDict({"responses": ids, "attention_mask": torch.ones_like(ids)}, batch_size=1),
            non_tensor_batch={
                "data_source": numpy.array([source], dtype=object),
                "reward_model": numpy.array([{"ground_truth": truth}], dtype=object),
                "extra_info": numpy.array([{"split": "train", "index": 0}], dtype=object),
            },
        )
        return asyncio.run(_run(manager, data))

    found = rewarded("spelling", "cat", "car")
    assert found["reward_score"] == pytest.approx(2 / 3)
    info = found["reward_extra_info"]
    assert (info["acc"], info["score"], info["metric/score"]) == (0.0, found["reward_score"], found["reward_score"])
    assert (info["metric/length"], info["pred"], info["grader_error"]) == (3.0, "cat", 0.0)
    assert rewarded("spelling", "car", "car")["reward_extra_info"]["acc"] == 1.0
    plain = rewarded("gsm8k", "#### 5", "5")
    assert plain["reward_score"] == 1.0 and "metric/score" not in plain["reward_extra_info"]


async def _run(manager, data):
    manager.loop = asyncio.get_running_loop()
    return await manager.run_single(data)


@pytest.mark.pipeline
@pytest.mark.timeout(1200)
def test_two_steps_with_own_data_and_own_scorer(tiny_files, tmp_path, monkeypatch):
    """Training and one validation file by the scorer from outside, another validation file by the project's own."""
    monkeypatch.setenv("PYTHONPATH", str(package(tmp_path / "mine")), prepend=os.pathsep)
    train, test = prepared(tmp_path, "train", WORDS), prepared(tmp_path, "test", [word.upper() for word in WORDS[:8]])
    process = start(
        tiny_files,  # an untrained model: nothing has to be prepared
        tmp_path / "runs",
        "run.prepare_command=null",
        *("run.name=own", "trainer.total_training_steps=2", "trainer.save_freq=2", "trainer.test_freq=2"),
        *("run.export=false", "trainer.val_before_train=false", "data.max_prompt_length=64"),
        f"data.train_files=[{train}]",
        f"data.val_files=[{test},{tiny_files}/data/validation.parquet]",
        "data.val_max_samples=-1",
        "reward.scorers.spelling=my_pkg.my_module:score",
    )
    output = finish(process)
    assert process.returncode == 0, output
    steps = records(tmp_path / "runs" / "own")
    assert [record["step"] for record in steps] == [1, 2]
    for record in steps:
        assert 0 <= record["reward/metric/score"] <= 1 and record["reward/metric/length"] > 0
        assert record["reward/grader_error"] == record["reward/grader_timeout"] == 0
        assert record["critic/rewards/mean"] == pytest.approx(record["reward/metric/score"], abs=1e-4)
    last = steps[-1]
    assert 0 <= last["val/spelling/metric/score"] <= 1 and 0 <= last["val/spelling/avg@1"] <= 1
    assert "val/reasoning_gym/countdown/avg@1" in last
    assert "val/reasoning_gym/countdown/metric/score" not in last
    state = json.loads((tmp_path / "runs" / "own" / "checkpoints" / "global_step_2" / "paec_state.json").read_text())
    assert state["identity"]["reward.scorers.spelling"] == "my_pkg.my_module:score"
