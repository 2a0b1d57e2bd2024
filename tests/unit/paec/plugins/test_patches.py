"""What replaces names of verl does what verl does; a name that verl no longer has is an error immediately."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from tensordict import TensorDict
from verl.models.transformers import monkey_patch
from verl.utils import seqlen_balancing as balancing
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


def batch_of(lengths: list[int]) -> TensorDict:
    """Jagged fields of one and of two dimensions, a plain one, and two that are no tensors."""
    rows = [torch.arange(n) + 10 * i for i, n in enumerate(lengths)]
    wide = torch.cat([row[:, None] + torch.tensor([0.25, 0.5]) for row in rows])
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    data = TensorDict({"number": torch.arange(len(rows))}, batch_size=len(rows))
    data["input_ids"] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    data["wide"] = torch.nested.nested_tensor_from_jagged(wide, offsets)
    tu.assign_non_tensor(data, name="one")
    tu.assign_non_tensor_stack(data, "uid", [f"u{i}" for i in range(len(rows))])
    return data


@pytest.mark.parametrize("indices", [[2, 0], [1], [3, 1, 1, 0], [0, 1, 2, 3], torch.tensor([3, 2])])
@pytest.mark.parametrize("lengths", [[3, 5, 4, 1], [2, 1, 7, 2]])
def test_selected_rows_are_verls(monkeypatch, lengths, indices):
    verls = tu.index_select_tensor_dict(batch_of(lengths), indices)
    monkeypatch.setattr(tu, "index_select_tensor_dict", tu.index_select_tensor_dict)
    patches.patch_selected_rows()
    found = tu.index_select_tensor_dict(batch_of(lengths), indices)
    assert set(found.keys()) == set(verls.keys()) and found.batch_size == verls.batch_size
    for name in ("input_ids", "wide"):
        assert torch.equal(found[name].values(), verls[name].values())
        assert torch.equal(found[name].offsets(), verls[name].offsets())
        assert found[name].dtype == verls[name].dtype and found[name].dim() == verls[name].dim()
        assert [row.tolist() for row in found[name].unbind()] == [row.tolist() for row in verls[name].unbind()]
        # verl pads fields of one dimension only; of others it does not know the largest length.
        longest = max(lengths[i] for i in indices)
        assert found[name].to_padded_tensor(-1).shape[:2] == (len(indices), longest)
    assert torch.equal(found["input_ids"].to_padded_tensor(-1), verls["input_ids"].to_padded_tensor(-1))
    assert found["input_ids"]._max_seqlen == verls["input_ids"]._max_seqlen
    assert found["input_ids"]._min_seqlen == verls["input_ids"]._min_seqlen
    assert found["number"].tolist() == verls["number"].tolist()
    assert found["name"] == "one" and found["uid"] == verls["uid"]
    found["input_ids"].values().zero_()
    assert verls["input_ids"].values().any()


def test_no_batch_has_no_rows(monkeypatch):
    monkeypatch.setattr(tu, "index_select_tensor_dict", tu.index_select_tensor_dict)
    patches.patch_selected_rows()
    assert tu.index_select_tensor_dict(None, [0, 1]) is None


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("equal", [True, False])
def test_balancing_with_plain_numbers_is_verls(monkeypatch, parts, equal):
    workload = balancing.calculate_workload(
        torch.randint(5, 9000, (48,), generator=torch.Generator().manual_seed(parts))
    )
    workload[7] = workload[3]  # a tie
    verls = balancing.get_seqlen_balanced_partitions(workload, parts, equal)
    seen = []
    karmarkar_karp = balancing.karmarkar_karp

    def watched(seqlen_list, k_partitions, equal_size):
        seen.append(seqlen_list)
        return karmarkar_karp(seqlen_list, k_partitions, equal_size)

    monkeypatch.setattr(balancing, "karmarkar_karp", watched)
    patches.plain_numbers()
    assert balancing.get_seqlen_balanced_partitions(workload, parts, equal) == verls
    assert seen == [workload.tolist()]
    assert balancing.get_seqlen_balanced_partitions(workload.tolist(), parts, equal) == verls


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
    patches.replace_name(module, "double", lambda original: lambda x: original(x) + 1)
    assert module.double(3) == 7


def test_a_name_that_is_gone_is_named_with_the_version_it_was_written_for():
    module = ModuleType("verl.some_module")
    expected = (
        f"verl.some_module.double does not exist: recipe/paec/plugins was written for verl {versions.pinned('verl')}$"
    )
    with pytest.raises(AttributeError, match=expected):
        patches.replace_name(module, "double", lambda original: original)
    assert not hasattr(module, "double")


def test_cpu_offload_without_pinned_memory():
    made = patches._without_pinning(lambda pin_memory: ("policy", pin_memory))
    assert made == ("policy", False) == patches._without_pinning(lambda pin_memory: ("policy", pin_memory), True)
