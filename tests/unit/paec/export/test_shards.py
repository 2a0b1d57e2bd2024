"""The shards of any number of ranks become one and the same model; a file that holds code is not executed."""

from __future__ import annotations

import pickle

import pytest
import torch
from checkpoint_worker import PROMPT, Canary
from export_cases import ONE_RANK, TWO_RANKS
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from recipe.paec.common.errors import UserError
from recipe.paec.export import huggingface


@pytest.mark.parametrize("case", ONE_RANK + TWO_RANKS, ids=lambda case: case["name"])
def test_logits_are_those_of_the_sharded_parameters(work, exported, case):
    model = AutoModelForCausalLM.from_pretrained(exported[case["name"]])
    assert model.dtype == torch.float32
    with torch.no_grad():
        logits = model(PROMPT).logits
        base = AutoModelForCausalLM.from_pretrained(work / case["model"])(PROMPT).logits
    wanted = torch.load(work / f"{case['name'].removesuffix('-ulysses')}.pt")["logits"]  # the same parameters
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
    assert (logits - base).abs().max() > 0.01, "the checkpoint must differ from the base model to say anything"
    assert model.generate(PROMPT, max_new_tokens=4).shape[1] in range(13, 17)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("tied-1", "tied-2"),
        ("tied-1", "tied-2-ulysses"),
        ("tied-1", "tied-2-replicated"),
        ("untied-1", "untied-2"),
        ("lora-1", "lora-2"),
    ],
)
def test_one_and_two_ranks_give_the_same_bits(exported, one, two):
    first, second = (load_file(exported[name] / "model.safetensors") for name in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tied_and_untied_embeddings(exported):
    assert "lm_head.weight" not in load_file(exported["tied-1"] / "model.safetensors")
    untied = load_file(exported["untied-1"] / "model.safetensors")
    assert not torch.equal(untied["lm_head.weight"], untied["model.embed_tokens.weight"])


def test_an_adapter_is_merged(exported):
    names = load_file(exported["lora-1"] / "model.safetensors").keys()
    assert names == load_file(exported["tied-1"] / "model.safetensors").keys()


@pytest.mark.parametrize("case", ONE_RANK + TWO_RANKS, ids=lambda case: case["name"])
def test_a_resume_reads_tensors_only(work, case):
    """verl's loading of its own checkpoints, parameters, optimizer and random state, with all but tensors refused."""
    result = torch.load(work / f"{case['name']}.pt")
    assert result["resumed"]
    if case in ONE_RANK:
        assert f"{case['name']}.planted: a file contains something other than tensors" in result["refused"]
    assert not (work / f"{case['name']}.canary").exists()


def test_a_shard_is_never_executed(copy, tmp_path):
    canary = tmp_path / "canary"
    torch.save({"weight": Canary(canary)}, copy / "actor" / "model_world_size_2_rank_0.pt")
    with pytest.raises(UserError, match="rank_0.pt: contains something other than tensors"):
        huggingface.export(copy, tmp_path / "model")
    assert not canary.exists()
    with open(copy / "actor" / "model_world_size_2_rank_0.pt", "rb") as stream:
        torch.load(stream, weights_only=False)
    assert canary.exists(), "the canary must work for its absence to say anything"
    (copy / "actor" / "model_world_size_2_rank_0.pt").write_bytes(pickle.dumps(Canary(tmp_path / "second")))
    with pytest.raises(UserError, match="rank_0.pt"):
        huggingface.export(copy, tmp_path / "model")
    assert not (tmp_path / "second").exists()
