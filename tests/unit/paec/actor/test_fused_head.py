"""The LM head that gives statistics instead of logits: what it refuses, and that it is the head it was."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from paec_loss import token_statistics
from recipe.paec.actor.fused_head import HeadLabels, StatisticsHead


def model(**changes) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        **changes,
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config)


def test_without_targets_it_is_the_head_it_was_and_with_them_its_statistics():
    policy = model()
    ids = torch.tensor([[1, 2, 3, 4]])
    before, names = policy(ids).logits, list(policy.state_dict())
    head = StatisticsHead.install(policy, chunk_size=3)
    assert torch.equal(policy(ids).logits, before) and list(policy.state_dict()) == names
    labels = torch.tensor([[2, 3, 4, -100]])
    head.targets = HeadLabels(labels, 0.7, 0.8)
    packed = policy(ids).logits
    want = token_statistics(before, labels, top_p=0.8, temperature=0.7)
    assert packed.shape == (1, 4, 7)
    torch.testing.assert_close(packed[..., 0], want.log_prob, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(packed[..., 2], want.nucleus_entropy, rtol=1e-6, atol=1e-7)
    assert packed[..., 3].tolist() == want.nucleus_size.tolist()


def test_a_model_that_changes_its_logits_after_the_head_is_refused():
    policy = model()
    policy.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="changes the logits after its output layer .final_logit_softcapping."):
        StatisticsHead.install(policy, chunk_size=3)


def test_a_head_that_is_no_plain_linear_is_refused():
    policy = model()
    policy.set_output_embeddings(torch.nn.Sequential(policy.lm_head))
    with pytest.raises(ValueError, match="is a Sequential, not a plain Linear: set .*fused_head=false"):
        StatisticsHead.install(policy, chunk_size=3)
