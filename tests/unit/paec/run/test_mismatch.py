"""Each cause of a mismatch is named where the configuration has it, and only there."""

from __future__ import annotations

import json

import pytest
from omegaconf import open_dict

from recipe.paec.run import mismatch
from recipe.paec.run.mismatch import causes, remedy

ROLLOUT = "actor_rollout_ref.rollout"


def test_the_quick_start_has_none(tiny_config):
    config = tiny_config()
    assert causes(config) == []
    assert remedy(config).startswith("the configuration has no known cause; float32 in ")
    assert remedy(config).endswith("algorithm.rollout_correction.rollout_is=token corrects the update for it")
    corrected = tiny_config("algorithm.rollout_correction.rollout_is=token")
    assert "rollout_is" not in remedy(corrected)


@pytest.mark.parametrize(
    ("overrides", "beginning", "remedied"),
    [
        (["top_p=0.9"], f"{ROLLOUT}.top_p=0.9: ", "up to 0.105 nats (-log top_p) lower: set it to 1"),
        (["top_k=50"], f"{ROLLOUT}.top_k=50: ", "set it to -1"),
        (
            ["logprobs_mode=raw_logprobs", "temperature=0.8"],
            f"{ROLLOUT}.logprobs_mode=raw_logprobs leaves out temperature=0.8",
            "set it to processed_logprobs",
        ),
        (["logprobs_mode=raw_logits"], f"{ROLLOUT}.logprobs_mode=raw_logits gives logits", "processed_logprobs"),
        (["quantization=fp8"], f"{ROLLOUT}.quantization=fp8 rounds vLLM's weights", "set it to null"),
        (
            ["dtype=bfloat16"],
            f"{ROLLOUT}.dtype=bfloat16 and actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32",
            "set both to one dtype",
        ),
    ],
)
def test_settings_of_the_rollout(tiny_config, overrides, beginning, remedied):
    config = tiny_config(*(f"{ROLLOUT}.{override}" for override in overrides))
    (found,) = causes(config)
    assert found.startswith(beginning) and remedied in found
    assert remedy(config) == f"{found}; algorithm.rollout_correction.rollout_is=token corrects the update for it"


def test_raw_log_probs_do_not_know_the_nucleus(tiny_config):
    """They are those of the whole vocabulary, as the actor's; at temperature 1 nothing sets them apart."""
    assert causes(tiny_config(f"{ROLLOUT}.logprobs_mode=raw_logprobs", f"{ROLLOUT}.top_p=0.9")) == []


def test_names_of_one_dtype(tiny_config):
    dtype = f"{mismatch.ACTOR_DTYPE}=bf16"
    assert causes(tiny_config(f"{ROLLOUT}.dtype=bfloat16", dtype)) == []
    config = tiny_config(f"{ROLLOUT}.dtype=bfloat16")
    config.actor_rollout_ref.actor.fsdp_config.mixed_precision = None
    assert causes(config) == [], "verl's default is bf16"


def test_a_cache_of_lower_precision(tiny_config):
    config = tiny_config()
    with open_dict(config):
        config.actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_dtype = "fp8"
    (found,) = causes(config)
    assert found.startswith(f"{ROLLOUT}.engine_kwargs.vllm.kv_cache_dtype=fp8 rounds")


def test_an_asynchronous_mode(tiny_config):
    (found,) = causes(tiny_config("trainer.v1.trainer_mode=paec_colocate_async"))
    assert found == "mode=colocate_async trains on responses of older policies: mode=sync does not"


def test_experts(tiny_config, model):
    config = tiny_config(f"model.path={model}")
    assert causes(config) == []
    content = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**content, "num_experts": 128}))
    (found,) = causes(config)
    assert found.startswith(f"{model} has 128 experts, and vLLM may route a token to others")


def test_several_causes(tiny_config):
    config = tiny_config(f"{ROLLOUT}.top_p=0.95", f"{ROLLOUT}.quantization=fp8")
    assert [found.split("=")[0] for found in causes(config)] == [f"{ROLLOUT}.top_p", f"{ROLLOUT}.quantization"]
