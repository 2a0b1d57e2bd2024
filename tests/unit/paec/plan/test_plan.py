"""The memory calculator: hand-computed bytes, models and layers that are really built, and every GPU configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp
from fsdp_states import sharded_states
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM

from recipe.paec.common.console import GIB
from recipe.paec.common.errors import UserError
from recipe.paec.common.repository import CONFIGS, REPOSITORY
from recipe.paec.config import attention
from recipe.paec.plan import command as plan_command
from recipe.paec.plan import formulas, remedies, settings, shapes
from recipe.paec.plan.settings import Setup
from recipe.paec.plan.shapes import QWEN

DOCUMENT = (REPOSITORY / "docs" / "plan.md").read_text(encoding="utf-8")
SEVEN = Setup(
    nodes=1,
    gpus_per_node=8,
    shards=8,
    tensor_parallel=1,
    sequence_parallel=1,
    tokens=8192,
    head_rows=None,
    dense_mask=False,
    checkpointing=True,
    parameter_bytes=4,
    compute_bytes=2,
    reduce_bytes=4,
    param_offload=False,
    optimizer_offload=False,
    cpu_policy=False,
    reference=False,
    rollout_bytes=2,
    memory_fraction=0.6,
    sleeps=True,
    graphs=True,
    batched_tokens=8192,
    sequences=256,
    max_model_len=4096,
    length=4096,
    bucket=2**31,
)
"""What experiment=qwen7b says, on one node with flash-attn."""


@pytest.fixture(autouse=True)
def no_own_model(monkeypatch):
    monkeypatch.delenv("MODEL", raising=False)


@pytest.fixture(autouse=True)
def flash_attn(monkeypatch):
    """Installed, whatever this machine has: the tables of the document."""
    monkeypatch.setattr(attention, "has_flash_attn", lambda: True)


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_published_parameter_counts():
    assert {name: shape.parameters for name, shape in QWEN.items()} == {
        "0.5B": 494_032_768,
        "1.5B": 1_543_714_304,
        "7B": 7_615_616_512,
        "14B": 14_770_033_664,
        "32B": 32_763_876_352,
    }
    # Qwen3-0.6B's files hold 751,632,384: the tied head is stored once more.
    assert shapes.QWEN3["0.6B"].parameters == 596_049_920 == 751_632_384 - 151_936 * 1024


SMALL = dict(hidden_size=48, intermediate_size=112, num_hidden_layers=3, num_attention_heads=6, vocab_size=301)


@pytest.mark.parametrize(
    "family, fields",
    [
        ("qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
        ("qwen2", {"num_key_value_heads": 6, "tie_word_embeddings": False}),
        ("qwen3", {"num_key_value_heads": 3, "head_dim": 20, "tie_word_embeddings": False}),
        ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    ],
)
def test_parameters_of_models_that_are_built(family, fields, tmp_path):
    config = AutoConfig.for_model(family, **SMALL, **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path)
    shape, source = shapes.find_shape(str(tmp_path))
    assert source == str(tmp_path / "config.json")
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.layer == sum(p.numel() for p in model.model.layers[0].parameters())
    assert shape.embedding == model.lm_head.weight.numel()


@pytest.mark.parametrize(
    "path, size",
    [
        ("Qwen/Qwen2.5-Math-1.5B", "1.5B"),
        ("Qwen/Qwen2.5-7B-Instruct", "7B"),
        ("/nowhere/models/Qwen2.5-32B/", "32B"),
    ],
)
def test_models_that_are_not_here(path, size):
    assert shapes.find_shape(path) == (QWEN[size], f"built-in table, Qwen2.5 {size}")


@pytest.mark.parametrize("path", ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", "models/Qwen3-0.6B/"])
def test_qwen3_that_is_not_here(path):
    assert shapes.find_shape(path) == (shapes.QWEN3["0.6B"], "built-in table, Qwen3 0.6B")


@pytest.mark.parametrize("path", ["Qwen/Qwen2.5-3B", "Qwen/Qwen3-8B", "my/Qwen2.5-7B-tuned", ""])
def test_unknown_models_are_refused(path):
    with pytest.raises(UserError, match="config.json"):
        shapes.find_shape(path)


@pytest.mark.parametrize(
    "content, words",
    [
        ({"model_type": "mixtral"}, "model_type=mixtral"),
        ({}, "model_type=None"),
        ({"model_type": "qwen2", "num_attention_heads": 2}, "'num_hidden_layers'"),
    ],
)
def test_bad_model_folders(tmp_path, content, words):
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as error:
        shapes.find_shape(str(tmp_path))
    assert words in str(error.value) and str(tmp_path) in str(error.value)


# ---- formulas --------------------------------------------------------------------------------------------------------


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


# ---- configurations --------------------------------------------------------------------------------------------------

FITTING = [
    *((name, cluster) for name in ("qwen1.5b", "qwen7b", "qwen14b") for cluster in ("gpu_1x8", "gpu_4x8")),
    ("qwen32b", "gpu_4x8"),
    ("qwen32b_1x8", "gpu_1x8"),
]


@pytest.mark.parametrize("experiment, cluster", FITTING)
def test_configurations_fit_80_gib(compose, experiment, cluster):
    config = compose(f"experiment={experiment}", f"cluster={cluster}")
    setup, (shape, _) = settings.read_setup(config), shapes.find_shape(config.model.path)
    assert setup.shards == {"gpu_1x8": 8, "gpu_4x8": 32}[cluster]
    assert remedies.errors_of(shape, setup, 80 * GIB) == []
    # At least a hundred responses of full length are generated at once, and one fits a micro-batch.
    replicas = setup.nodes * setup.gpus_per_node // setup.tensor_parallel
    kv_tokens = formulas.estimate(shape, setup, 80 * GIB).kv_tokens
    assert replicas * (kv_tokens // setup.length) >= 100
    assert setup.tokens * setup.sequence_parallel >= setup.length
    assert shape.heads % setup.sequence_parallel == 0 == shape.heads % setup.tensor_parallel
    found = formulas.estimate(shape, setup, 80 * GIB)
    row = (
        f"{experiment}, {cluster}",
        f"{setup.tokens} x {setup.sequence_parallel}",
        setup.tensor_parallel,
        "host" if setup.cpu_policy else "GPU",
        *(f"{found.total(phase) / GIB:.1f}" for phase in ("update", "rollout")),
        replicas * (kv_tokens // setup.length),
    )
    assert f"| {' | '.join(map(str, row))} |" in DOCUMENT


def test_the_example_of_the_document(compose, capsys):
    plan_command.plan(compose("experiment=qwen7b"), 80 * GIB)
    printed = capsys.readouterr().out
    assert f"```\n{printed[printed.index('GiB per GPU') :]}```" in DOCUMENT


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


@pytest.mark.parametrize("experiment", ["qwen1.5b", "qwen7b"])
def test_configurations_fit_without_flash_attn(compose, monkeypatch, experiment):
    monkeypatch.setattr(attention, "has_flash_attn", lambda: False)
    config = compose(f"experiment={experiment}")
    setup, (shape, _) = settings.read_setup(config), shapes.find_shape(config.model.path)
    assert setup.dense_mask and remedies.errors_of(shape, setup, 80 * GIB) == []


ONE_GPU = {"qwen0.6b_gsm8k": 24, "qwen0.6b_gsm8k_80gb": 80}
"""GiB of the card that each configuration for one GPU is for; config/test_one_gpu.py has what smaller ones show."""


@pytest.mark.parametrize("experiment, memory", ONE_GPU.items())
def test_the_table_for_one_gpu(compose, monkeypatch, experiment, memory):
    monkeypatch.setattr(attention, "has_flash_attn", lambda: False)
    config = compose(f"experiment={experiment}")
    setup, (shape, _) = settings.read_setup(config), shapes.find_shape(config.model.path)
    assert remedies.errors_of(shape, setup, memory * GIB) == []
    found = formulas.estimate(shape, setup, memory * GIB)
    phases = (f"{found.total(phase) / GIB:.1f}" for phase in ("update", "weight sync", "rollout"))
    row = (f"{experiment}, {memory} GiB", setup.tokens, setup.memory_fraction, *phases, found.kv_tokens // setup.length)
    assert f"| {' | '.join(map(str, row))} |" in DOCUMENT


def test_every_gpu_experiment_is_planned():
    files = {path.stem for path in (CONFIGS / "experiment").glob("*.yaml")}
    assert files == {name for name, _ in FITTING} | set(ONE_GPU) | {"tiny_cpu", "tiny_math", "tiny_gpu"}


def test_setup_of_qwen7b(compose):
    assert settings.read_setup(compose("experiment=qwen7b")) == SEVEN
    other = compose(
        "experiment=qwen7b",
        "cluster=gpu_4x8",
        "actor_rollout_ref.actor.fsdp_config.fsdp_size=8",
        "actor_rollout_ref.actor.fsdp_config.fused_head=true",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype=bf16",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=10000",
        "actor_rollout_ref.rollout.max_model_len=null",
        "model.context_length=0",
    )
    expected = replace(SEVEN, nodes=4, head_rows=1024, reduce_bytes=2, tokens=10000)
    assert settings.read_setup(other) == expected


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


@pytest.mark.parametrize("experiment, memory", [("qwen14b", 64), ("qwen7b", 24)])
def test_a_remedy_works(compose, experiment, memory):
    config = compose(f"experiment={experiment}")
    shape = shapes.find_shape(config.model.path)[0]
    assert remedies.errors_of(shape, settings.read_setup(config), memory * GIB)
    sentence = remedies.remedy(shape, settings.read_setup(config), memory * GIB)
    assert sentence.startswith("it would fit with ")
    fixed = compose(f"experiment={experiment}", *sentence.removeprefix("it would fit with ").split())
    assert remedies.errors_of(shape, settings.read_setup(fixed), memory * GIB) == []


def test_no_remedy(compose):
    assert "use more GPUs" in remedies.remedy(QWEN["32B"], SEVEN, 8 * GIB)


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
