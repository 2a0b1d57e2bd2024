"""Bytes by hand, and against layers and FSDP2 states that are really built."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp
from fsdp_states import sharded_states
from plan_cases import DOCUMENT, SEVEN
from transformers import AutoConfig, AutoModelForCausalLM

from recipe.paec.common.console import GIB
from recipe.paec.plan import formulas, shapes
from recipe.paec.plan.shapes import QWEN


@pytest.mark.parametrize("dtype, width", [(torch.bfloat16, 2), (torch.float32, 4)])
def test_what_a_layer_saves(dtype, width, tmp_path):
    """Against the tensors that autograd really keeps of one Qwen2 layer, parameters and the layer's input aside."""
    tokens = 96
    fields = dict(hidden_size=256, intermediate_size=704, num_attention_heads=8, num_key_value_heads=2, vocab_size=64)
    config = AutoConfig.for_model("qwen2", num_hidden_layers=1, **fields)
    config.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype)
    hidden = torch.randn(1, tokens, 256, dtype=dtype, requires_grad=True)
    rotation = model.model.rotary_emb(hidden, torch.arange(tokens)[None])
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.model.layers[0](hidden, attention_mask=None, position_embeddings=rotation)
    shape, _ = shapes.find_shape(str(tmp_path))
    assert sum(saved.values()) == tokens * formulas.saved_by_layer(shape, width)
    assert output.shape == hidden.shape


def test_qwen7b_by_hand():
    found = formulas.estimate(QWEN["7B"], SEVEN, 80 * GIB)
    adam, bucket = "optimizer states (Adam's two moments)", "weight-sync bucket and largest tensor"
    working = "vLLM: activations, sampler, graphs"
    # 8192 tokens x 2 bytes x (3 x 18944 + 4 x 3584), 3 float32 copies of 256 rows of logits, and a GiB of graphs
    vllm = 1_166_016_512 + 467_140_608 + GIB
    assert found.phases["update"] == {
        "parameters": 3_807_808_256,  # 4 x 7,615,616,512 / 8
        "gradients": 3_807_808_256,
        adam: 7_615_616_512,
        "CUDA contexts": 2 * GIB,
        "gathered parameters and gradients": 5_449_973_760,  # (2 x 2 + 2 + 4) x 152,064 x 3584
        "activations": 4_778_328_064,  # 8192 x (28 x 7168 + 225,912 + 128,000 + 28,676)
        "logits and their statistics": 2_533_359_616,  # 8192 x (2 x 152,064 + 5120)
        working: GIB,
    }
    assert found.phases["weight sync"] == {
        "parameters": 3_807_808_256,
        adam: 7_615_616_512,
        "CUDA contexts": 2 * GIB,
        bucket: 4_327_473_152,  # 2^31 + 4 x 152,064 x 3584
        "vLLM: weights": 15_231_233_024,
        working: GIB,
    }
    rollout = found.phases["rollout"]
    assert rollout["vLLM: weights"] == 15_231_233_024 and rollout[working] == vllm
    assert rollout["vLLM: KV cache"] == 48 * GIB - 15_231_233_024 - vllm
    # vLLM takes its share whole: 48 GiB, beside parameters, moments and contexts.
    assert found.total("rollout") == 48 * GIB + 11_423_424_768 + 2 * GIB
    # 2 x 28 layers x 4 heads x 128 x 2 bytes = 57,344 a token, in blocks of 16
    assert found.kv_tokens == int((48 * GIB - 15_231_233_024 - vllm) / 57_344) // 16 * 16 == 585_952
    assert found.host == 0


def test_fused_head_by_hand():
    """1024 rows of logits, and the float32 gradient of the head's weight."""
    fused = replace(SEVEN, head_rows=1024)
    assert formulas.logits(QWEN["7B"], fused) == 1024 * (304_128 + 5120) + 4 * 152_064 * 3584
    assert formulas.logits(QWEN["7B"], replace(fused, tokens=512)) == 512 * (304_128 + 5120) + 4 * 152_064 * 3584


def test_without_checkpointing_every_layer_counts():
    with_it, without = (formulas.activations(QWEN["7B"], replace(SEVEN, checkpointing=c)) for c in (True, False))
    assert without - with_it == 8192 * (27 * 225_912 - 28 * 7168)


def test_sdpa_by_hand():
    """A boolean mask [T, T], additive in bfloat16, and its padded copy; without checkpointing each layer keeps one."""
    dense = replace(SEVEN, dense_mask=True)
    assert formulas.attention_mask(QWEN["7B"], dense) == 8192**2 * (1 + 2 + 2)
    assert formulas.attention_mask(QWEN["7B"], replace(dense, checkpointing=False)) == 8192**2 * (1 + 2 * 28 + 2)
    assert formulas.attention_mask(QWEN["7B"], replace(dense, sequence_parallel=2)) == 16384**2 * 5
    assert formulas.attention_mask(QWEN["7B"], SEVEN) == 0
    with_it, without = (formulas.estimate(QWEN["7B"], setup, 80 * GIB) for setup in (dense, SEVEN))
    assert with_it.total("update") - without.total("update") == 8192**2 * 5
    assert with_it.total("rollout") == without.total("rollout")


def test_graphs_come_on_top_of_the_share_with_vllms_newer_model_runner():
    """The same shape without biases, as Qwen3 and Llama have none: a GiB more for the cache, a GiB more in all."""
    counted, beside = (
        formulas.estimate(replace(QWEN["7B"], qkv_bias=biases), SEVEN, 80 * GIB) for biases in (True, False)
    )
    lost = 28 * (3584 + 2 * 512) * 2  # the biases, in bfloat16
    assert beside.phases["rollout"]["vLLM: CUDA graphs beside its share"] == GIB
    gained = [of.phases["rollout"]["vLLM: KV cache"] for of in (beside, counted)]
    assert gained[0] - gained[1] == GIB + lost
    assert "vLLM: CUDA graphs beside its share" not in counted.phases["rollout"]
    without = replace(SEVEN, graphs=False)
    eager = formulas.estimate(replace(QWEN["7B"], qkv_bias=False), without, 80 * GIB)
    assert beside.total("rollout") - eager.total("rollout") == GIB


def test_offload():
    shape, adam = QWEN["7B"], "optimizer states (Adam's two moments)"
    states = ("parameters", "gradients", adam)
    one = 3_807_808_256

    def of(**changes):
        found = formulas.estimate(shape, replace(SEVEN, **changes), 80 * GIB)
        phases = [[phase.get(item, 0) // one for item in states] for phase in found.phases.values()]
        return phases, found.host // one

    assert of() == ([[1, 1, 2], [1, 0, 2], [1, 0, 2]], 0)
    assert of(param_offload=True) == ([[1, 1, 2], [0, 0, 2], [0, 0, 2]], 8)
    assert of(optimizer_offload=True) == ([[1, 1, 2], [1, 0, 0], [1, 0, 0]], 16)
    assert of(cpu_policy=True) == ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], 32)
    assert of(reference=True)[1] == of()[1] + 8  # one more copy of the parameters, a quarter of the four states


def test_vllm_that_does_not_sleep_is_there_during_the_update():
    awake, asleep = (formulas.estimate(QWEN["7B"], replace(SEVEN, sleeps=s), 80 * GIB) for s in (False, True))
    assert awake.total("update") - asleep.total("update") == pytest.approx(48 * GIB - GIB, abs=1)
    assert awake.total("rollout") == asleep.total("rollout")


@pytest.mark.parametrize("degree, heads", [(1, 4), (2, 2), (4, 1), (8, 1)])
def test_kv_heads_are_divided_and_then_repeated(degree, heads):
    setup = replace(SEVEN, tensor_parallel=degree)
    assert formulas.kv_bytes_per_token(QWEN["7B"], setup) == 2 * 28 * heads * 128 * 2


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize(
    "changes, phases, direction",
    [
        ({"nodes": 2, "shards": 16}, ("update", "weight sync", "rollout"), -1),
        ({"tokens": 9000}, ("update",), 1),
        ({"tensor_parallel": 2}, ("weight sync",), -1),
        ({"compute_bytes": 4}, ("update",), 1),
        ({"parameter_bytes": 2}, ("update", "weight sync", "rollout"), -1),
        ({"checkpointing": False}, ("update",), 1),
        ({"memory_fraction": 0.7}, ("rollout",), 1),
        ({"param_offload": True}, ("weight sync", "rollout"), -1),
        ({"cpu_policy": True}, ("update", "weight sync", "rollout"), -1),
    ],
)
def test_directions(name, changes, phases, direction):
    before = formulas.estimate(QWEN[name], SEVEN, 80 * GIB)
    after = formulas.estimate(QWEN[name], replace(SEVEN, **changes), 80 * GIB)
    for phase in before.phases:
        change = after.total(phase) - before.total(phase)
        assert change * direction > 0 if phase in phases else change == pytest.approx(0, abs=1), phase


def test_states_of_two_fsdp_ranks(tiny_files, tmp_path):
    """The bytes that FSDP2 and AdamW really hold: in all exactly, on each rank up to a row of the odd vocabulary."""
    (tmp_path / "model").symlink_to(tiny_files / "model")
    mp.spawn(sharded_states, args=(2, str(tmp_path)), nprocs=2)
    measured = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    shape, _ = shapes.find_shape(str(tmp_path / "model"))
    update = formulas.estimate(shape, replace(SEVEN, gpus_per_node=2, shards=2), 80 * GIB).phases["update"]
    items = {"parameters": 1, "gradients": 1, "optimizer states (Adam's two moments)": 2}
    for (item, factor), name in zip(items.items(), ("parameters", "gradients", "moments"), strict=True):
        assert sum(rank[name] for rank in measured) == 2 * update[item] == factor * 4 * 674_176
        assert all(abs(rank[name] - update[item]) <= factor * 4 * 128 for rank in measured)


@pytest.mark.parametrize(
    "layers, head_rows, mib", [(24, None, 11341), (24, 1024, 11262), (6, None, 7119), (6, 1024, 7040)]
)
def test_the_peaks_of_the_document(layers, head_rows, mib):
    """The update that benchmarks/actor_update.py measures: float32, one rank, no GPU."""
    one = replace(SEVEN, gpus_per_node=1, shards=1, tokens=2048, compute_bytes=4, graphs=False, head_rows=head_rows)
    found = formulas.estimate(replace(QWEN["0.5B"], layers=layers), one, 80 * GIB)
    total = round((found.total("update") - 2 * formulas.CONTEXT) / 2**20)
    assert total == mib
    assert f"| {layers}{', fused' if head_rows else ''} | {mib} | " in DOCUMENT
