"""Checkpoints of one and of two ranks, saved by verl's own FSDP2 engine under torchrun (gloo), and their exports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from export_cases import ONE_RANK, STEP, TWO_RANKS
from omegaconf import OmegaConf
from ranks import torchrun_cases
from transformers import Qwen2ForCausalLM

from data_prep import countdown, tiny_model
from recipe.paec.common.files import write_json
from recipe.paec.export import huggingface
from recipe.paec.run import checkpoints


@pytest.fixture(scope="session")
def work(tmp_path_factory, compose) -> Path:
    """Two models and, in the checkpoints/ of a run, a checkpoint of each case."""
    run = tmp_path_factory.mktemp("runs") / "tiny-paec"
    work = run / "checkpoints"
    work.mkdir(parents=True)
    tiny_model.build(work / "tied")
    tokens = tiny_model.tokenizer()
    config = tiny_model.config(tokens)
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    tiny_model.save(Qwen2ForCausalLM(config), tokens, work / "untied")
    countdown.write(run / "data", train=8, validation=8)
    torchrun_cases("checkpoint_worker.py", work, 1, ONE_RANK, timeout=300)
    torchrun_cases("checkpoint_worker.py", work, 2, TWO_RANKS, timeout=300)
    train_file = run / "data" / "train.parquet"
    (run / "data" / "train.manifest.json").write_text("{}\n")
    config = compose(
        "experiment=tiny_cpu", "method.rho=0.7", f"data.train_files={train_file}", "run.name=tiny-paec",
        "actor_rollout_ref.rollout.temperature=0.7", "actor_rollout_ref.rollout.top_p=0.9",
        "actor_rollout_ref.rollout.top_k=20",
    )  # fmt: skip
    (run / "config.yaml").write_text(OmegaConf.to_yaml(config))
    write_json(run / "versions.json", {"verl": "0.9.1", "git_commit": "c0ffee", "vllm": None})
    (run / "metrics.jsonl").write_text(
        '{"step": 2, "val/countdown/avg@4": 0.1}\n{"step": 3, "val/countdown/avg@4": 0.4321, "reward/format": 1.0}\n'
    )
    identity = {
        "method": "paec",
        "method.rho": 0.7,
        "model": "abc/123",
        "data.train_files": [str(train_file)],
        "data.train_batch_size": 16,
        "workers": 2,
    }
    for case in ONE_RANK + TWO_RANKS:
        # What the trainer writes last; without digests, so that the export itself meets what is wrong with a shard.
        state = {"format": checkpoints.FORMAT, "step": STEP, "identity": identity, "methods": {}, "score": None}
        state["files"] = {}
        write_json(work / case["name"] / "paec_state.json", state)
    return work


@pytest.fixture(scope="session")
def exported(work, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exported")
    for case in ONE_RANK + TWO_RANKS:
        huggingface.export(work / case["name"], root / case["name"])
    return {case["name"]: root / case["name"] for case in ONE_RANK + TWO_RANKS}


@pytest.fixture
def copy(work, tmp_path) -> Path:
    """A checkpoint to be damaged."""
    shutil.copytree(work / "tied-2", tmp_path / "global_step_3")
    return tmp_path / "global_step_3"
