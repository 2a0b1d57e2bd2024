"""Memory of the host and of the GPUs, against what was measured."""

from __future__ import annotations

import os

from recipe.paec.common.console import GIB
from recipe.paec.doctor import node_memory
from recipe.paec.plan import formulas


def test_memory(tiny_config):
    """What was measured: 6.9 GiB with one worker, 10.4 with two; the model itself is small."""
    for workers, measured in ((1, 6.9), (2, 10.4)):
        need = formulas.host_memory(tiny_config(f"cluster.gpus_per_node={workers}"))
        assert measured * GIB <= need < (measured + 0.05) * GIB
    (problem,) = node_memory.memory(tiny_config("cluster.gpus_per_node=1000")).errors
    assert (
        "about 350" in problem
        and "GiB needed with 1000 worker(s)" in problem
        and "lower cluster.gpus_per_node" in problem
    )


def test_gpu_memory(compose, tmp_path, monkeypatch):
    """A stand-in for nvidia-smi: two GPUs of 80 GiB, the second half full."""
    stand_in = tmp_path / "nvidia-smi"
    stand_in.write_text("#!/bin/sh\necho '0, GPU-aa, 81920, 81000'\necho '1, GPU-bb, 81920, 41000'\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    config = compose("experiment=qwen7b")
    (problem,) = node_memory.gpu_memory(config, 8).errors
    assert problem.startswith("GPU 1: 40.0 GiB of 80.0 GiB are free, 60.6 GiB are needed (recipe.paec.plan)")
    assert node_memory.gpu_memory(config, 1).errors == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    assert len(node_memory.gpu_memory(config, 1).errors) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    lora = compose("experiment=qwen7b", "lora.rank=8")
    assert node_memory.gpu_memory(lora, 1).errors == ()  # not planned: vLLM's share alone
    large = compose("experiment=qwen7b", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=200000")
    (note,) = node_memory.gpu_memory(large, 1).notes
    assert "python -m recipe.paec.plan" in note
