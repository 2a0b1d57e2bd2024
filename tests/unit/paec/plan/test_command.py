"""The command: the example of the page, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from omegaconf import OmegaConf
from plan_cases import DOCUMENT

from recipe.paec.common.console import GIB
from recipe.paec.common.errors import UserError
from recipe.paec.common.repository import REPOSITORY
from recipe.paec.plan import command as plan_command


def test_the_example_of_the_document(compose, capsys):
    plan_command.plan(compose("experiment=qwen7b"), 80 * GIB)
    printed = capsys.readouterr().out
    assert f"```\n{printed[printed.index('GiB per GPU') :]}```" in DOCUMENT


def test_one_node_of_80_gb_is_too_small_for_32b(compose, capsys):
    config = compose("experiment=qwen32b", "cluster=gpu_1x8")
    with pytest.raises(UserError) as error:
        plan_command.plan(config, 80 * GIB)
    (problem,) = error.value.errors
    assert problem == (
        "the update needs 77.1 GiB, more than the usable 76.0 GiB; the rollout needs 95.8 GiB, more than the usable "
        "76.0 GiB; it would fit with actor_rollout_ref.actor.fsdp_config.offload_policy=true"
    )
    assert "32.76 B parameters (shape: " in capsys.readouterr().out
    plan_command.plan(config, 139 * GIB)  # an H200
    assert capsys.readouterr().out.splitlines()[-1] == "it fits"


REFUSED = {
    ("cluster.platform", "cpu"): "add cluster=gpu_1x1",
    ("actor_rollout_ref.model.lora_rank", 8): "lora_rank=8",
    ("actor_rollout_ref.actor.use_dynamic_bsz", False): "use_dynamic_bsz=true",
    ("actor_rollout_ref.rollout.dtype", "int3"): "rollout.dtype=int3",
    ("actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu", 9000): "no larger than",
    ("cluster.nodes", 0): "cluster.nodes=0",
    ("actor_rollout_ref.rollout.gpu_memory_utilization", 0.2): "room for 0 tokens",
}


def test_refusals(compose):
    base = compose("experiment=qwen7b")
    for (key, value), words in REFUSED.items():
        config = base.copy()
        OmegaConf.update(config, key, value)
        with pytest.raises(UserError, match=words):
            plan_command.plan(config, 80 * GIB)


def test_a_micro_batch_must_hold_a_sequence(compose):
    config = compose("experiment=qwen7b", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048")
    with pytest.raises(UserError, match="= 2048 is less than prompt . response = 4096"):
        plan_command.plan(config, 80 * GIB)


def command(*arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "recipe.paec.plan", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY)


def test_the_command():
    done = command("experiment=qwen1.5b", "cluster.attention=flash_attention_2", "gpu_memory=60")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Qwen/Qwen2.5-Math-1.5B: 1.54 B parameters") and lines[-1] == "it fits"
    # vLLM's share is 36 GiB; beside it 2.16 GiB of states and two contexts.
    assert ["total", "16.76", "10.90", "40.16"] in [line.split() for line in lines]


@pytest.mark.parametrize("value", ["much", "0", "-80", "inf", "nan", ""])
def test_gpu_memory_is_a_number(value, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["plan", "experiment=qwen1.5b", f"gpu_memory={value}"])
    assert plan_command.main() == 2
    assert capsys.readouterr().err == f"error: gpu_memory={value}: must be a number of GiB > 0\n"
