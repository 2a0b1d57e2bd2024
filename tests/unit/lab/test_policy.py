"""The functional Qwen2 and Llama against transformers': logits and gradient, shared prompts and padding included."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from data_prep import tiny_model
from recipe.lab.policy import Policy, Prompts
from recipe.paec.common.errors import UserError


@pytest.fixture(params=["quick start", "grouped, untied", "llama"])
def model(request, small, tmp_path):
    """The policy and transformers' model of one folder, both in float64."""
    folder = small().task / "model"
    if request.param == "llama":
        folder = tmp_path / "llama"
        tiny_model.build(folder, seed=1, initializer_range=0.1, shape="llama")
    elif request.param == "grouped, untied":
        sizes = dict(
            vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=2, max_position_embeddings=64
        )
        torch.manual_seed(1)
        config = Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
        folder = tmp_path
        Qwen2ForCausalLM(config).save_pretrained(folder)
    return Policy(folder), AutoModelForCausalLM.from_pretrained(folder)


def test_logits_and_gradient_are_those_of_transformers(model):
    policy, reference = model
    generator = torch.Generator().manual_seed(2)
    lengths, answers = [5, 2, 9], [[3, 7], [1, 4], [6, 6]]
    rows = [torch.randint(policy.vocab_size, (length,), generator=generator).tolist() for length in lengths]
    responses = torch.randint(policy.vocab_size, (3, 2, 7), generator=generator)
    responses[0, 1, 2] = reference.config.pad_token_id or 0  # a policy may draw it; transformers drops its gradient
    inside = torch.arange(7) < torch.tensor(answers)[..., None]
    found = policy.logits(Prompts.of(rows), responses, inside)
    expected = torch.cat(
        [
            reference(torch.tensor([*rows[i], *responses[i, j, : answers[i][j]].tolist()])[None]).logits[
                0, lengths[i] - 1 : -1
            ]
            for i in range(3)
            for j in range(2)
        ]
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    weights = torch.randn(found.shape, generator=generator)
    (found.log_softmax(-1) * weights).mean().backward()
    (expected.log_softmax(-1) * weights).mean().backward()
    named = dict(reference.named_parameters())
    assert named.keys() == policy.parameters.keys()
    for name, parameter in policy.parameters.items():
        gap = (parameter.grad - named[name].grad).norm() / named[name].grad.norm().clamp_min(1e-6)
        assert gap < 1e-4, name


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "qwen3"}, "its model_type is qwen3, but the laboratory supports only qwen2 and llama"),
        ({"attention_bias": True}, "its config.json has attention_bias, which the laboratory does not support"),
        ({"head_dim": 64, "use_sliding_window": True}, "its config.json has use_sliding_window, head_dim, which"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "its config.json has rope_type, which"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "its config.json has rope_type, which"),
    ],
)
def test_what_is_refused(tmp_path, changed, said):
    config = {"model_type": "llama", "hidden_size": 128, "num_attention_heads": 4, **changed}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        Policy(tmp_path)
