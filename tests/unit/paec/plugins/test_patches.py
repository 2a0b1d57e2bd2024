"""What replaces names of verl does what verl does; a name that verl no longer has is an error immediately."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from tensordict import TensorDict
from verl.models.transformers import monkey_patch
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine.utils import prepare_micro_batches

from recipe.paec.common import versions
from recipe.paec.plugins import patches


def mini_batch(limit: int, ranks: int = 1) -> TensorDict:
    """Rows of 3, 5 and 4 tokens, and how many a micro-batch may have."""
    rows = [torch.arange(3), torch.arange(5), torch.arange(4)]
    fields = {"input_ids": torch.nested.as_nested_tensor(rows, layout=torch.jagged), "number": torch.arange(3)}
    data = TensorDict(fields, batch_size=3)
    tu.assign_non_tensor(data, use_dynamic_bsz=True, max_token_len_per_gpu=limit, sp_size=ranks)
    return data


@pytest.fixture
def replaced(monkeypatch):
    monkeypatch.setattr(transformer_impl, "prepare_micro_batches", prepare_micro_batches)
    patches.whole_micro_batch()
    return transformer_impl.prepare_micro_batches


@pytest.mark.parametrize(("limit", "ranks"), [(12, 1), (100, 1), (6, 2)])
def test_one_micro_batch_is_the_mini_batch(replaced, limit, ranks):
    data = mini_batch(limit, ranks)
    (found,), places = replaced(data=data)
    (verls,), its_places = prepare_micro_batches(data=data)
    assert places == its_places == [[0, 1, 2]]
    assert found is not data and found["input_ids"] is data["input_ids"]
    assert torch.equal(found["input_ids"].values(), verls["input_ids"].values())
    assert torch.equal(found["input_ids"].offsets(), verls["input_ids"].offsets())
    assert found["number"].tolist() == verls["number"].tolist() and found["max_token_len_per_gpu"] == limit


@pytest.mark.parametrize("options", [{}, {"min_num_micro_batch": 2}])
def test_several_are_verls(replaced, options):
    limit = 100 if options else 11
    found, places = replaced(data=mini_batch(limit), **options)
    verls, its_places = prepare_micro_batches(data=mini_batch(limit), **options)
    assert places == its_places and len(places) == 2
    for ours, theirs in zip(found, verls, strict=True):
        assert torch.equal(ours["input_ids"].values(), theirs["input_ids"].values())


def test_a_fixed_number_of_rows_is_verls(replaced):
    data = mini_batch(100)
    tu.assign_non_tensor(data, use_dynamic_bsz=False, micro_batch_size_per_gpu=1)
    assert [batch["number"].tolist() for batch in replaced(data=data)[0]] == [[0], [1], [2]]


def test_a_trl_without_verls_class_does_not_matter(monkeypatch):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=16, num_key_value_heads=2, **sizes))
    trl = ModuleType("trl")
    trl.__path__ = []
    monkeypatch.setitem(sys.modules, "trl", trl)
    monkeypatch.delitem(sys.modules, "trl.experimental.ppo", raising=False)
    monkeypatch.delitem(sys.modules, "trl.experimental", raising=False)
    monkeypatch.setattr(monkey_patch, "is_trl_available", lambda: True)
    with pytest.raises(ImportError, match="AutoModelForCausalLMWithValueHead"):
        monkey_patch.apply_monkey_patch(model)
    patches.without_value_head()
    monkey_patch.apply_monkey_patch(model)


def test_a_name_is_replaced_by_what_is_made_of_it():
    module = ModuleType("verl.some_module")
    module.double = lambda x: 2 * x
    patches._replace(module, "double", lambda original: lambda x: original(x) + 1)
    assert module.double(3) == 7


def test_a_name_that_is_gone_is_named_with_the_version_it_was_written_for():
    module = ModuleType("verl.some_module")
    expected = f"verl.some_module.double does not exist: .*patches.py was written for verl {versions.pinned('verl')}$"
    with pytest.raises(AttributeError, match=expected):
        patches._replace(module, "double", lambda original: original)
    assert not hasattr(module, "double")


def test_cpu_offload_without_pinned_memory():
    made = patches._without_pinning(lambda pin_memory: ("policy", pin_memory))
    assert made == ("policy", False) == patches._without_pinning(lambda pin_memory: ("policy", pin_memory), True)
