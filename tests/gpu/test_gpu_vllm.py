"""vLLM on one GPU: memory given back asleep, weights by CUDA IPC before and after, log-probs near the actor's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_prep import tiny_model

pytestmark = pytest.mark.pipeline
TOLERANCE = {"cpu": 1e-4, "cuda": 6e-2}
"""Of a log-prob in nats: vLLM's float32, or its bf16, against float32."""


def peaked_model(folder: Path, seed: int) -> None:
    """The quick start's model, untrained, with larger weights: two of them differ by whole nats."""
    from transformers import AutoModelForCausalLM

    tiny_model.build(folder, seed=seed)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.0)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def result(tmp_path_factory, device, platform) -> tuple[Path, dict]:
    """What the worker wrote, and the folder with the two models."""
    work = tmp_path_factory.mktemp("vllm")
    for seed, name in enumerate(("first", "second")):
        peaked_model(work / name, seed)
    env = {**os.environ, "VERL_PLATFORM": platform, "PAEC_RUN": "gputest", "VERL_REPLICA_RANK": "0"}
    env |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
    env |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}
    if device.type == "cpu":
        env |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    worker = Path(__file__).with_name("vllm_worker.py")
    done = subprocess.run([sys.executable, worker, work], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-12000:]
    return work, torch.load(work / "result.pt")


def log_probs(folder: Path, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Of a response under a model, float32 [R]."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


@pytest.mark.parametrize("name", ["first", "second"])
def test_vllm_has_the_weights_that_were_sent(result, device, name):
    from vllm_worker import PROMPTS, TOKENS

    work, found = result
    other = "second" if name == "first" else "first"
    for prompt, (response, taken) in zip(PROMPTS, found[name], strict=True):
        assert len(response) == TOKENS
        expected = log_probs(work / name, prompt, response)
        torch.testing.assert_close(torch.tensor(taken), expected, rtol=0, atol=TOLERANCE[device.type])
        gap = (log_probs(work / other, prompt, response) - expected).abs().max().item()
        assert gap > 2 * TOLERANCE[device.type], "the two models must differ for this test to say anything"


def test_asleep_it_gives_its_memory_back(result, device):
    if device.type == "cpu":
        pytest.skip("vLLM's CPU build has no sleep mode: not rehearsed")
    _, found = result
    awake, asleep, with_weights, again = (value / found["total"] for value in found["free"])
    assert asleep - awake > 0.15  # of the 0.25 of the GPU that it was given
    assert asleep - with_weights < 0.05  # the weights alone: the KV cache is still away
    assert abs(again - awake) < 0.05
