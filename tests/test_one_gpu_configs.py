"""The configurations for one GPU: what they set, that they fit 24 and 80 GB, and models of three families."""

from __future__ import annotations

import json
import os

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from data_prep import tiny_model
from recipe.paec.common import prompts, versions
from recipe.paec.common.console import GIB
from recipe.paec.common.repository import CONFIGS
from recipe.paec.config import attention, rules
from recipe.paec.config.identity import trainer_mode
from recipe.paec.doctor import environment, inputs, node_limits, node_memory
from recipe.paec.plan import command as plan_command
from recipe.paec.plan import formulas, remedies, settings, shapes

ONE_GPU = ("tiny_gpu", "qwen0.6b_gsm8k", "qwen0.6b_gsm8k_80gb")
CARDS = {"qwen0.6b_gsm8k": 22.5, "qwen0.6b_gsm8k_80gb": 79.1}
"""GiB that the smallest card of the kind shows: an L4 or A10 of 24 GB, an H100 of 80."""


@pytest.fixture(autouse=True)
def bare(monkeypatch, tiny_files):
    monkeypatch.delenv("MODEL", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    monkeypatch.setattr(attention, "has_flash_attn", lambda: False)


@pytest.mark.parametrize("experiment", ONE_GPU)
def test_one_gpu_with_vllm_asleep_during_updates(compose, experiment):
    config = compose(f"experiment={experiment}")
    rollout = config.actor_rollout_ref.rollout
    assert rules.check_config(config) == []
    assert (config.cluster.platform, config.trainer.nnodes, config.trainer.n_gpus_per_node) == ("cuda", 1, 1)
    assert rollout.free_cache_engine and rollout.enable_sleep_mode and trainer_mode(config) == "sync"
    assert rollout.dtype == "bfloat16" and attention.name_of(config) == "packed_sdpa"
    env = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert env["GLOO_SOCKET_IFNAME"] == env["NCCL_SOCKET_IFNAME"] == "lo"
    assert env["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert node_limits.cpus(config).found.endswith(
        "; Ray is told 16 (cluster.num_cpus), of which the run's processes reserve 6"
    )


@pytest.mark.parametrize("cluster", ["gpu_1x1", "gpu_1x8", "gpu_4x8"])
@pytest.mark.parametrize("eager, compiled", [(True, False), (False, True)])
def test_eager_and_compile_are_fields_of_the_cluster(compose, cluster, eager, compiled):
    config = compose(
        "experiment=qwen1.5b", f"cluster={cluster}", f"cluster.enforce_eager={eager}", f"cluster.compile={compiled}"
    ).actor_rollout_ref
    assert config.rollout.enforce_eager is eager
    engines = (config.actor, config.actor.fsdp_config, config.ref, config.ref.fsdp_config)
    assert [engine.use_torch_compile for engine in engines] == [compiled] * 4


def test_the_first_run_compiles_nothing(compose):
    tiny, larger = (compose(f"experiment={name}").cluster for name in ("tiny_gpu", "qwen0.6b_gsm8k"))
    assert (tiny.enforce_eager, tiny.compile) == (True, False)
    assert (larger.enforce_eager, larger.compile) == (False, True)


def test_a_cluster_of_several_nodes_is_not_told_loopback(compose):
    joined = compose("experiment=qwen0.6b_gsm8k", "cluster.ray_address=10.0.0.1:6379")
    assert not {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"} & set(joined.cluster.env)


@pytest.mark.parametrize("experiment, memory", CARDS.items())
@pytest.mark.parametrize("model", ["qwen3_0.6b", "qwen2.5_0.5b_instruct"])
def test_they_fit(compose, capsys, experiment, memory, model):
    config = compose(f"experiment={experiment}", f"model={model}")
    plan_command.plan(config, memory * GIB)
    assert capsys.readouterr().out.splitlines()[-1] == "it fits"
    setup = settings.read_setup(config)
    shape, _ = shapes.find_shape(config.model.path)
    assert not setup.dense_mask and setup.shards == 1
    assert formulas.estimate(shape, setup, memory * GIB).kv_tokens // setup.length >= 48


def test_the_larger_variant_does_not_fit_the_smaller_card(compose):
    config = compose("experiment=qwen0.6b_gsm8k_80gb")
    setup, (shape, _) = settings.read_setup(config), shapes.find_shape(config.model.path)
    assert remedies.errors_of(shape, setup, 22.5 * GIB)


def test_the_tiny_experiment_needs_no_download(compose):
    config = compose("experiment=tiny_gpu")
    assert inputs.check_inputs(config) == []
    assert config.run.prepare_command.startswith("-m data_prep.tiny ") and config.run.name == "tiny_gpu-paec"
    plan_command.plan(config, 8 * GIB)


def stand_in(folder, monkeypatch, mebibytes: int) -> None:
    """An nvidia-smi that shows one empty GPU."""
    script = f'#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: a card" || echo "0, GPU-aa, {mebibytes}, {mebibytes - 400}"\n'
    (folder / "nvidia-smi").write_text(script)
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("experiment", ONE_GPU)
def test_the_checks_of_a_machine_with_one_card(compose, tmp_path, monkeypatch, experiment):
    stand_in(tmp_path, monkeypatch, {"qwen0.6b_gsm8k_80gb": 81559}.get(experiment, 23034))
    monkeypatch.setattr(versions, "stack", lambda: "gpu")
    config = compose(f"experiment={experiment}")
    assert environment.check_cluster(config) == []
    check = node_memory.gpu_memory(config, 1)
    assert check.errors == () == check.notes and check.found.startswith("free on 0: ")
    (problem,) = environment.check_cluster(compose(f"experiment={experiment}", "cluster.gpus_per_node=2"))
    assert problem.startswith("GPUs: 1 found on this node, but cluster.gpus_per_node=2")


# ---- models of other families ----------------------------------------------------------------------------------------

LLAMA_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE without merges and with Llama 3's special tokens: 261 tokens."""
    bpe = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(tiny_model.byte_alphabet())}, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=LLAMA_SPECIALS[0], eos_token=LLAMA_SPECIALS[4], pad_token=LLAMA_SPECIALS[1]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": LLAMA_SPECIALS[2:4]})
    tokenizer.chat_template = LLAMA_TEMPLATE
    return tokenizer


SHAPES = {
    "qwen2": dict(num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": dict(num_key_value_heads=2, head_dim=32, tie_word_embeddings=True),
    "llama": dict(
        num_key_value_heads=1,
        tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512,
        },
    ),
}


@pytest.fixture(params=SHAPES)
def model(request, tmp_path):
    """A folder with config.json, weights and tokenizer of a small model of each family, its embedding padded to 384."""
    tokenizer = llama_tokenizer() if request.param == "llama" else tiny_model.tokenizer()
    config = AutoConfig.for_model(
        request.param,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=384,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        **SHAPES[request.param],
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model", sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("experiment", ["tiny_gpu", "qwen0.6b_gsm8k"])
def test_every_family_passes_plan_and_checks(compose, capsys, model, experiment, tiny_files):
    folder, parameters = model
    rows = [f"data.{key}=[{tiny_files}/data/{file}.parquet]" for key, file in FILES.items()]
    batch = ["data.train_batch_size=16", "actor_rollout_ref.actor.ppo_mini_batch_size=16"]
    family = ["model.context_length=2048", "model.chat_template=null"]
    config = compose(f"experiment={experiment}", f"model.path={folder}", *family, *rows, *batch)
    assert rules.check_config(config) == []
    assert inputs.check_inputs(config) == []
    assert shapes.parameter_count(str(folder)) == parameters
    plan_command.plan(config, 24 * GIB)
    assert capsys.readouterr().out.splitlines()[-1] == "it fits"


FILES = {"train_files": "train", "val_files": "validation"}


def test_llamas_prompt_ends_where_the_response_begins(tmp_path):
    tokenizer = llama_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    loaded = prompts.load_tokenizer(tmp_path, None, "m", "r")
    ids = prompts.encode(loaded, [{"role": "user", "content": "1+1?"}])
    text = loaded.decode(ids)
    assert text.startswith("<|begin_of_text|><|start_header_id|>user") and ids.count(loaded.bos_token_id) == 1
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_qwen3_answers_without_a_thought(compose):
    """The template in configs/model is Qwen3's own with enable_thinking=false."""
    tokenizer = tiny_model.tokenizer()
    tokenizer.chat_template = compose("model=qwen3_0.6b").actor_rollout_ref.model.custom_chat_template
    ids = prompts.encode(tokenizer, [{"role": "user", "content": "1+1?"}])
    assert tokenizer.decode(ids) == ("<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_gsm8k_is_told_how_to_get(compose):
    config = compose("experiment=qwen0.6b_gsm8k", "data.train_files=[/nowhere/train.parquet]")
    problem = inputs.check_data(config, None)[0]
    assert problem.startswith("data.train_files: /nowhere/train.parquet does not exist: run python -m data_prep gsm8k")


def test_gsm8k_from_its_published_rows(compose, tmp_path):
    """data_prep's file of GSM8K passes the checks of the experiment."""
    from data_prep.__main__ import main

    raw = tmp_path / "raw.jsonl"
    rows = [{"question": f"What is {i} + 1?", "answer": f"One more.\n#### {i + 1}"} for i in range(128)]
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["gsm8k", "--input", str(raw), "--output", str(tmp_path / "gsm8k"), "--allow-count-mismatch"]) == 0
    files = [f"data.{key}=[{tmp_path}/gsm8k/train.parquet]" for key in FILES]
    assert inputs.check_data(compose("experiment=qwen0.6b_gsm8k", *files), None) == []


@pytest.mark.parametrize("cluster", sorted(path.stem for path in (CONFIGS / "cluster").glob("gpu_*.yaml")))
def test_cudnn_is_not_the_first_choice_of_attention(compose, cluster):
    """It would plan anew for every length of a sequence."""
    config = compose("experiment=qwen1.5b", f"cluster={cluster}")
    assert config.ray_kwargs.ray_init.runtime_env.env_vars["TORCH_CUDNN_SDPA_DEPRIORITIZED"] == "1"


def test_where_adamw_runs_on_the_host_it_has_threads(compose):
    """Ray sets one where nothing is set."""
    on_host = {}
    for path in (CONFIGS / "experiment").glob("*.yaml"):
        config = compose(f"experiment={path.stem}")
        if config.cluster.platform == "cuda" and config.actor_rollout_ref.actor.fsdp_config.offload_policy:
            on_host[path.stem] = config.ray_kwargs.ray_init.runtime_env.env_vars.get("OMP_NUM_THREADS")
    assert on_host == {"qwen32b_1x8": "8"}
