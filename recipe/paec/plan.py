"""`python -m recipe.paec.plan experiment=... [key=value ...] [gpu_memory=80]`: what each GPU needs, and if it fits.

Three phases take turns on the same GPUs: the actor's update (vLLM asleep), the weight sync (vLLM's weights are back,
its KV cache is not) and the rollout. Every line of the table is a formula of this module; docs/plan.md says where each
comes from, what was checked against a measurement and what was not. Bytes throughout; printed in GiB.
"""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass, replace
from itertools import combinations

from omegaconf import DictConfig, OmegaConf

from recipe.paec import attention_choice, preflight
from recipe.paec.checks import GIB
from recipe.paec.command_line import complain, hydra_command, say
from recipe.paec.errors import UserError
from recipe.paec.model_files import file_problems, model_folder, read_config, tensor_shapes, weight_files
from recipe.paec.runs import resolved

GPU_MEMORY = 80.0
"""GiB of a GPU where `gpu_memory=` says nothing."""
USABLE = 0.95
"""Share of it that may be planned with: an 80 GB H100 shows 79.1 GiB, and the allocator's fragments are no use."""
CONTEXT = 1.0 * GIB
"""CUDA context and NCCL buffers of one process; two share a GPU, the actor's and vLLM's. Assumed, not measured."""
GRAPHS = 1.0 * GIB
"""vLLM's CUDA graphs, which stay while it sleeps. Assumed, not measured."""
STATISTICS = 5 * 1024
"""Bytes that the triton kernel needs for each row of logits beside them (docs/kernel.md)."""
KV_BLOCK = 16
"""Tokens of a block of vLLM's KV cache."""
HOST_BASE, HOST_WORKER = 3.4 * GIB, 3.5 * GIB
"""Memory of a node: launcher, Ray and driver; and each worker with its vLLM. Measured on the quick start: 6.9 GiB
with one worker, 10.4 with two (docs/plan.md)."""
CHECKPOINT_REST = 32 * 2**20
"""Bytes of a checkpoint beside the states: tokenizer, data loader, bookkeeping. The quick start's has 0.1 MiB."""
DTYPES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
"""Bytes of an element, by the names that verl and vLLM use."""
DENSE = (attention_choice.SDPA, "ulysses_sdpa")
"""Attention that keeps packed sequences apart by a mask."""
MODELLED = {
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "actor_rollout_ref.actor.fsdp_config.reshard_after_forward": True,
    "actor_rollout_ref.actor.fsdp_config.use_no_sync_for_gradient_accumulation": False,
    "actor_rollout_ref.model.use_remove_padding": True,
    "actor_rollout_ref.model.use_fused_kernels": False,
    "actor_rollout_ref.model.enable_activation_offload": False,
    "actor_rollout_ref.model.lora_rank": 0,
    "actor_rollout_ref.rollout.quantization": None,
    "actor_rollout_ref.rollout.pipeline_model_parallel_size": 1,
    "trainer.v1.trainer_mode": "paec_sync",
}
"""Settings that the formulas rest on; with another value nothing is printed, for it would be wrong."""


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder with grouped-query attention and a gated MLP."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    """Embedding and LM head are one matrix."""
    qkv_bias: bool = True
    """Qwen2's query, key and value projections have a bias."""
    qk_norm: bool = False
    """Qwen3's queries and keys are normalised per head."""

    @property
    def q_width(self) -> int:
        """Width of all queries."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all keys; that of all values is the same."""
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the LM head."""
        return self.vocab * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of one decoder layer: attention, MLP, two norms."""
        qkv = self.q_width + 2 * self.kv_width
        attention = self.hidden * (qkv + self.q_width) + qkv * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, a tied matrix once."""
        return self.layers * self.layer + self.hidden + self.embedding * (1 if self.tied else 2)


QWEN = {
    "0.5B": ModelShape(24, 896, 4864, 14, 2, 64, 151936, True),
    "1.5B": ModelShape(28, 1536, 8960, 12, 2, 128, 151936, True),
    "7B": ModelShape(28, 3584, 18944, 28, 4, 128, 152064, False),
    "14B": ModelShape(48, 5120, 13824, 40, 8, 128, 152064, False),
    "32B": ModelShape(64, 5120, 27648, 40, 8, 128, 152064, False),
}
"""Published shapes of Qwen2.5, from each model's config.json; Qwen2.5-Math and the instruct models have the same."""
QWEN3 = {"0.6B": ModelShape(28, 1024, 3072, 16, 8, 128, 151936, True, qkv_bias=False, qk_norm=True)}
"""Published shapes of Qwen3."""
PUBLISHED = {"Qwen2.5": QWEN, "Qwen3": QWEN3}
FAMILIES = {
    "qwen2": {"qkv_bias": True, "qk_norm": False},
    "qwen3": {"qkv_bias": False, "qk_norm": True},
    "llama": {"qkv_bias": False, "qk_norm": False},
}
"""`model_type`s whose parameters `ModelShape` counts."""


def read_shape(config: dict) -> ModelShape:
    """The shape in a model's config.json; ValueError for a family that is not modelled, KeyError for a lost field."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type={family}: only {', '.join(FAMILIES)} are modelled")
    heads = config["num_attention_heads"]
    return ModelShape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocab=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
        **FAMILIES[family],
    )


def find_shape(path: str) -> tuple[ModelShape, str]:
    """Shape of the model `path` (folder or hub id), and where it was found; UserError if nothing is known of it."""
    folder = model_folder(path)
    if folder is not None and (folder / "config.json").is_file():
        file = folder / "config.json"
        try:
            return read_shape(json.loads(file.read_text(encoding="utf-8"))), str(file)
        except KeyError as error:
            raise UserError(f"model.path={path}: {file} has no {error}: give a complete model folder") from None
        except ValueError as error:
            raise UserError(f"model.path={path}: {file}: {error}") from None
    name = re.search(r"(Qwen2\.5|Qwen3)-(?:Math-)?([\d.]+B)(?:-Instruct|-Base)?/*$", path)
    if name is None or name[2] not in PUBLISHED[name[1]]:
        known = "; ".join(f"{family} {', '.join(shapes)}" for family, shapes in PUBLISHED.items())
        raise UserError(
            f"model.path={path}: not on this machine, and not among the published shapes ({known}): give a folder with "
            "the model's config.json"
        )
    return PUBLISHED[name[1]][name[2]], f"built-in table, {name[1]} {name[2]}"


@dataclass(frozen=True)
class Setup:
    """What of the configuration decides about memory."""

    nodes: int
    gpus_per_node: int
    shards: int
    """GPUs that share one copy of parameters, gradients and optimizer states."""
    tensor_parallel: int
    sequence_parallel: int
    tokens: int
    """Tokens of a micro-batch on one GPU, its Ulysses share."""
    head_rows: int | None
    """Rows whose logits exist at once with the fused head; None: all."""
    dense_mask: bool
    """Attention is sdpa, which takes packed sequences with a mask [T, T]."""
    checkpointing: bool
    """Gradient checkpointing: of each layer only the input is kept."""
    parameter_bytes: int
    """Of an element of the sharded parameters, gradients and Adam moments."""
    compute_bytes: int
    """Of an element of gathered parameters, activations and logits."""
    reduce_bytes: int
    """Of an element of the gradients while ranks sum them."""
    param_offload: bool
    """verl moves the parameters to the host between updates."""
    optimizer_offload: bool
    """verl moves the optimizer states to the host between updates."""
    cpu_policy: bool
    """FSDP2 keeps parameters, gradients and optimizer on the host all the time (offload_policy)."""
    reference: bool
    """There is a reference policy; verl keeps its parameters on the host all the time."""
    rollout_bytes: int
    """Of an element of vLLM's weights, activations and KV cache."""
    memory_fraction: float
    """vLLM's share of the GPU (gpu_memory_utilization)."""
    sleeps: bool
    """vLLM frees weights and KV cache during updates (free_cache_engine)."""
    graphs: bool
    """vLLM captures CUDA graphs."""
    batched_tokens: int
    sequences: int
    """vLLM's max_num_batched_tokens and max_num_seqs."""
    max_model_len: int
    length: int
    """Longest prompt + response, tokens."""
    bucket: int
    """Bytes of the weight sync's bucket."""


def has_reference(config: DictConfig) -> bool:
    """Whether the run has a reference policy (FSDP2: its parameters are on the host, sharded)."""
    return bool(config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward)


def read_setup(config: DictConfig) -> Setup:
    """The Setup of a resolved configuration; UserError for settings that the formulas do not cover."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    problems = [
        f"{key}={OmegaConf.select(config, key)}: the plan only covers {key}={json.dumps(value)}"
        for key, value in MODELLED.items()
        if OmegaConf.select(config, key) != value
    ]
    if rollout.log_prob_max_token_len_per_gpu > actor.ppo_max_token_len_per_gpu:
        problems.append(
            "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu is more than the actor's "
            "ppo_max_token_len_per_gpu: the plan only covers log-prob passes that are not larger than the update"
        )
    if config.cluster.platform != "cuda":
        problems.append("the plan is about GPU memory: add cluster=gpu_1x1, cluster=gpu_1x8 or cluster=gpu_4x8")
    fsdp, cluster = actor.fsdp_config, config.cluster
    names = {
        "fsdp_config.model_dtype": fsdp.model_dtype,
        **{f"fsdp_config.mixed_precision.{k}": fsdp.mixed_precision[k] for k in ("param_dtype", "reduce_dtype")},
        "rollout.dtype": rollout.dtype,
    }
    problems += [
        f"{key}={name}: choose one of {', '.join(DTYPES)}" for key, name in names.items() if name not in DTYPES
    ]
    if problems:
        raise UserError(*problems)
    parameter_bytes, compute_bytes, reduce_bytes, rollout_bytes = (DTYPES[name] for name in names.values())
    gpus = cluster.nodes * cluster.gpus_per_node
    length = config.data.max_prompt_length + config.data.max_response_length
    return Setup(
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
        shards=fsdp.fsdp_size if 0 < fsdp.fsdp_size < gpus else gpus,
        tensor_parallel=cluster.tensor_parallel,
        sequence_parallel=cluster.sequence_parallel,
        tokens=actor.ppo_max_token_len_per_gpu,
        head_rows=(fsdp.head_chunk_size or chunk_size()) if fsdp.fused_head else None,
        dense_mask=attention_choice.name_of(config) in DENSE,
        checkpointing=config.actor_rollout_ref.model.enable_gradient_checkpointing,
        parameter_bytes=parameter_bytes,
        compute_bytes=compute_bytes,
        reduce_bytes=reduce_bytes,
        param_offload=fsdp.param_offload,
        optimizer_offload=fsdp.optimizer_offload,
        cpu_policy=fsdp.offload_policy,
        reference=has_reference(config),
        rollout_bytes=rollout_bytes,
        memory_fraction=rollout.gpu_memory_utilization,
        sleeps=rollout.free_cache_engine,
        graphs=not rollout.enforce_eager,
        batched_tokens=rollout.max_num_batched_tokens,
        sequences=rollout.max_num_seqs,
        max_model_len=rollout.max_model_len or config.model.context_length or length,
        length=length,
        bucket=rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20,
    )


def chunk_size() -> int:
    """Rows whose logits exist at once with fused_head, where none are given."""
    from paec_loss.linear import CHUNK_SIZE  # imports torch

    return CHUNK_SIZE


# ---- formulas --------------------------------------------------------------------------------------------------------


def saved_by_layer(shape: ModelShape, width: int) -> int:
    """Bytes per token that one decoder layer keeps for its backward pass, elements of `width` bytes.

    Each norm keeps its input in float32 and 1 / rms (4 d + 4) and its result twice, before and after its weight; then
    query, key, value and attention's result, the log-sum-exp of each head in float32, cos and sin of the rotation, and
    four tensors of the MLP (gate, its silu, up, their product). Attention is a flash kernel: no [T, T] matrix.
    """
    norms = 2 * (4 * shape.hidden + 4 + 2 * width * shape.hidden)
    attention = 2 * width * (shape.q_width + shape.kv_width + shape.head_dim) + 4 * shape.heads
    return norms + attention + 4 * width * shape.intermediate


def activations(shape: ModelShape, setup: Setup) -> int:
    """Bytes of activations at the peak of the backward pass.

    With checkpointing each layer's input, and one layer that is recomputed; without it all that the layers keep. Then
    the gradients inside one MLP (three of its width, two of the hidden width), and the final norm.
    """
    width = setup.compute_bytes
    layer = saved_by_layer(shape, width)
    kept = shape.layers * width * shape.hidden + layer if setup.checkpointing else shape.layers * layer
    gradients = width * (3 * shape.intermediate + 2 * shape.hidden)
    final_norm = 4 * shape.hidden + 4 + 2 * width * shape.hidden
    return setup.tokens * (kept + gradients + final_norm)


def attention_mask(shape: ModelShape, setup: Setup) -> int:
    """Bytes of sdpa's mask over a whole micro-batch: [T, T] boolean, and additive for the kernel, once more where it is
    padded. Without checkpointing each layer keeps its additive one for the backward pass. Read, not measured."""
    if not setup.dense_mask:
        return 0
    kept = 1 if setup.checkpointing else shape.layers
    return (setup.tokens * setup.sequence_parallel) ** 2 * (1 + setup.compute_bytes * (kept + 1))


def logits(shape: ModelShape, setup: Setup) -> int:
    """Bytes of logits [T, V], over which their gradient is written, and of the statistics' own memory.

    The fused head has a chunk of rows at a time, and sums its weight's gradient [V, d] in float32.
    """
    rows = setup.tokens if setup.head_rows is None else min(setup.head_rows, setup.tokens)
    weight_gradient = 0 if setup.head_rows is None else 4 * shape.embedding
    return rows * (shape.vocab * setup.compute_bytes + STATISTICS) + weight_gradient


def gathered(shape: ModelShape, setup: Setup) -> int:
    """Bytes of whole parameters and whole gradients that exist at once under FSDP2.

    Of the largest unit (a layer, or embedding or head) at most: the one in use and the one that is being gathered, and
    a gradient with the copy of it that is being summed over the ranks.
    """
    return max(shape.layer, shape.embedding) * (3 * setup.compute_bytes + setup.reduce_bytes)


def kv_bytes_per_token(shape: ModelShape, setup: Setup) -> int:
    """Bytes of keys and values of one token on one GPU; heads are divided, and repeated where there are too few."""
    heads = max(1, shape.kv_heads // setup.tensor_parallel)
    return 2 * shape.layers * heads * shape.head_dim * setup.rollout_bytes


def rollout_working_memory(shape: ModelShape, setup: Setup) -> float:
    """Bytes beside weights and KV cache inside vLLM's share: a batch of prompt tokens in one MLP, the sampler's float32
    logits (as they come, processed, sorted), CUDA graphs. vLLM measures this itself; the formula is an assumption."""
    row = setup.rollout_bytes * (3 * shape.intermediate / setup.tensor_parallel + 4 * shape.hidden)
    sampler = 3 * 4 * setup.sequences * shape.vocab
    return setup.batched_tokens * row + sampler + GRAPHS * setup.graphs


@dataclass(frozen=True)
class Estimate:
    """Bytes per GPU: of each phase by item, and what the KV cache holds."""

    phases: dict[str, dict[str, float]]
    kv_tokens: int
    """Of one vLLM replica; negative where not even the weights have room."""
    host: float
    """Bytes of states kept in the memory of one node."""

    def total(self, phase: str) -> float:
        """Bytes of a phase."""
        return sum(self.phases[phase].values())


def estimate(shape: ModelShape, setup: Setup, gpu_memory: float) -> Estimate:
    """Memory of each phase on a GPU with `gpu_memory` bytes."""
    shard = shape.parameters * setup.parameter_bytes / setup.shards
    params_away, optimizer_away = setup.param_offload or setup.cpu_policy, setup.optimizer_offload or setup.cpu_policy
    between = {
        "parameters": 0.0 if params_away else shard,
        "optimizer states (Adam's two moments)": 0.0 if optimizer_away else 2 * shard,
        "CUDA contexts": 2 * CONTEXT,
    }
    share = setup.memory_fraction * gpu_memory
    weights = shape.parameters * setup.rollout_bytes / setup.tensor_parallel
    working = rollout_working_memory(shape, setup)
    kv_room = share - weights - working
    vllm = {"vLLM: weights": weights, "vLLM: activations, sampler, graphs": working, "vLLM: KV cache": kv_room}
    asleep = {"vLLM: activations, sampler, graphs": GRAPHS * setup.graphs} if setup.sleeps else vllm
    on_gpu = 0 if setup.cpu_policy else 1
    update = {
        **between,
        "parameters": on_gpu * shard,
        "gradients": on_gpu * shard,
        "optimizer states (Adam's two moments)": on_gpu * 2 * shard,
        "gathered parameters and gradients": gathered(shape, setup),
        "activations": activations(shape, setup),
        **({"attention mask (sdpa)": attention_mask(shape, setup)} if setup.dense_mask else {}),
        "logits and their statistics": logits(shape, setup),
    }
    sync = {
        "weight-sync bucket and largest tensor": setup.bucket + shape.embedding * setup.parameter_bytes,
        "vLLM: weights": weights,
    }
    states = params_away + 2 * optimizer_away + setup.cpu_policy + setup.reference
    host = states * shard * setup.gpus_per_node
    return Estimate(
        phases={
            "update": {**update, **asleep},
            "weight sync": {**between, **asleep, **sync},
            "rollout": {**between, **vllm},
        },
        kv_tokens=math.floor(kv_room / kv_bytes_per_token(shape, setup) / KV_BLOCK) * KV_BLOCK,
        host=host,
    )


def peak(shape: ModelShape, setup: Setup, gpu_memory: float) -> float:
    """Bytes of the largest phase."""
    found = estimate(shape, setup, gpu_memory)
    return max(found.total(phase) for phase in found.phases)


# ---- without a GPU's plan --------------------------------------------------------------------------------------------


def parameter_count(path: str) -> int | None:
    """Parameters of the model `path`, from its weight files or the built-in table; None without a whole model."""
    folder = model_folder(path)
    if folder is not None:
        whole = not file_problems(folder, path)
        return sum(math.prod(shape) for shape in tensor_shapes(weight_files(folder)).values()) if whole else None
    try:
        return find_shape(path)[0].parameters
    except UserError:
        return None


def host_memory(config: DictConfig) -> float:
    """Bytes of memory that a run takes on one node; a model that is still to be made counts nothing.

    The measured base, and for each parameter: the float32 copy that rank 0 (with a tied head every rank) loads, the
    states that stay on the host, and on CPU vLLM's weights.
    """
    cluster, fsdp = config.cluster, config.actor_rollout_ref.actor.fsdp_config
    cpu, workers, folder = cluster.platform == "cpu", cluster.gpus_per_node, model_folder(config.model.path)
    parameters = parameter_count(config.model.path) or 0
    tied = parameters and folder is not None and read_config(folder).get("tie_word_embeddings", False)
    states = 4 if cpu or fsdp.offload_policy else fsdp.param_offload + 2 * fsdp.optimizer_offload
    states += has_reference(config)
    sharded = states * DTYPES.get(fsdp.model_dtype, 4) / cluster.nodes
    rollout = 4 * workers // cluster.tensor_parallel if cpu else 0
    each = 4 * (workers if tied else 1) + sharded + rollout
    return HOST_BASE + workers * HOST_WORKER + each * parameters


def checkpoint_bytes(config: DictConfig, parameters: int) -> int:
    """Bytes of one checkpoint: parameters and Adam's two moments, in the sharded parameters' dtype."""
    element = DTYPES.get(config.actor_rollout_ref.actor.fsdp_config.model_dtype, 4)
    return 3 * element * parameters + CHECKPOINT_REST


# ---- does it fit -----------------------------------------------------------------------------------------------------


def problems_of(shape: ModelShape, setup: Setup, gpu_memory: float) -> list[str]:
    """Why it does not fit, one sentence each."""
    found, usable = estimate(shape, setup, gpu_memory), USABLE * gpu_memory
    problems = [
        f"the {phase} needs {found.total(phase) / GIB:.1f} GiB, more than the usable {usable / GIB:.1f} GiB"
        for phase in found.phases
        if found.total(phase) > usable
    ]
    if found.kv_tokens < setup.max_model_len:
        problems.append(
            f"vLLM's KV cache has room for {max(found.kv_tokens, 0)} tokens, less than one sequence of "
            f"max_model_len={setup.max_model_len}"
        )
    return problems


def knobs(shape: ModelShape, setup: Setup) -> list[tuple[str, dict]]:
    """Overrides that could help, and the fields of Setup they change; cheap ones first."""
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    tokens, twice, double_tp = setup.tokens // 2, 2 * setup.sequence_parallel, 2 * setup.tensor_parallel
    halved = f"{actor}.ppo_max_token_len_per_gpu={tokens}"
    found: list[tuple[str, dict]] = []
    if tokens * setup.sequence_parallel >= setup.length:
        found.append((halved, {"tokens": tokens}))
    elif shape.heads % twice == 0 and setup.gpus_per_node % twice == 0:
        found.append((f"{halved} cluster.sequence_parallel={twice}", {"tokens": tokens, "sequence_parallel": twice}))
    for fraction in (round(setup.memory_fraction + step, 2) for step in (-0.1, -0.2, 0.1, 0.2)):
        if 0 < fraction < 0.9:
            found.append((f"{rollout}.gpu_memory_utilization={fraction}", {"memory_fraction": fraction}))
    if setup.gpus_per_node % double_tp == 0 and shape.heads % double_tp == 0:
        found.append((f"cluster.tensor_parallel={double_tp}", {"tensor_parallel": double_tp}))
    if setup.head_rows is None:
        found.append((f"{actor}.fsdp_config.fused_head=true", {"head_rows": chunk_size()}))
    if not setup.optimizer_offload:
        found.append((f"{actor}.fsdp_config.optimizer_offload=true", {"optimizer_offload": True}))
    if not setup.cpu_policy:
        found.append((f"{actor}.fsdp_config.offload_policy=true", {"cpu_policy": True}))
    if setup.shards == setup.nodes * setup.gpus_per_node:
        nodes = 2 * setup.nodes
        found.append((f"cluster.nodes={nodes}", {"nodes": nodes, "shards": nodes * setup.gpus_per_node}))
    return found


def remedy(shape: ModelShape, setup: Setup, gpu_memory: float) -> str:
    """The fewest overrides, three at most, with which everything fits, as one sentence."""
    for count in (1, 2, 3):
        for chosen in combinations(knobs(shape, setup), count):
            changes = {field: value for _, fields in chosen for field, value in fields.items()}
            if not problems_of(shape, replace(setup, **changes), gpu_memory):
                return f"it would fit with {' '.join(override for override, _ in chosen)}"
    return "no three of the usual overrides make it fit: take more GPUs, or shorter sequences"


# ---- command ---------------------------------------------------------------------------------------------------------


def table(found: Estimate, gpu_memory: float) -> list[str]:
    """The estimate as lines of text, GiB."""
    items = list(dict.fromkeys(item for phase in found.phases.values() for item in phase))
    items.sort(key=lambda item: (item.startswith("vLLM"), item.startswith("CUDA")))  # the actor's items first
    wide = max(map(len, items)) + 2
    rows = [("GiB per GPU", *found.phases)]
    for item in items:
        cells = (phase.get(item, 0.0) for phase in found.phases.values())
        rows.append((item, *(f"{cell / GIB:.2f}" if cell else "-" for cell in cells)))
    rows.append(("total", *(f"{found.total(phase) / GIB:.2f}" for phase in found.phases)))
    rows.append((f"usable: {USABLE:.0%} of {gpu_memory / GIB:g}", *[f"{USABLE * gpu_memory / GIB:.2f}"] * 3))
    return [f"{row[0]:<{wide}}" + "".join(f"{cell:>13}" for cell in row[1:]) for row in rows]


def plan(config: DictConfig, gpu_memory: float) -> None:
    """Print the plan of a resolved configuration; UserError if it does not fit. `gpu_memory` in bytes."""
    problems = preflight.check_config(config)
    if problems:
        raise UserError(*problems)
    setup = read_setup(config)
    shape, source = find_shape(config.model.path)
    found = estimate(shape, setup, gpu_memory)
    say(f"{config.model.path}: {shape.parameters / 1e9:.2f} B parameters (shape: {source})")
    say(
        f"{setup.nodes} x {setup.gpus_per_node} GPUs, states sharded over {setup.shards}; micro-batches of "
        f"{setup.tokens} tokens a GPU, Ulysses {setup.sequence_parallel}; vLLM tensor parallel {setup.tensor_parallel}"
    )
    say("\n".join(table(found, gpu_memory)))
    say(
        f"KV cache: {max(found.kv_tokens, 0)} tokens a replica, {max(found.kv_tokens, 0) // setup.length} sequences of "
        f"prompt + response = {setup.length} at once (max_num_seqs {setup.sequences})"
    )
    if found.host:
        say(f"offloaded states: {found.host / GIB:.0f} GiB of host memory a node")
    problems = problems_of(shape, setup, gpu_memory)
    if problems:
        problems = ["; ".join([*problems, remedy(shape, setup, gpu_memory)])]
    if problems:
        raise UserError(*problems)
    say("it fits")


def main() -> int:
    """Command line entry; returns the exit code: 2 if it does not fit."""
    given = [a for a in sys.argv[1:] if a.startswith("gpu_memory=")]
    try:
        gpu_memory = float(given[-1].partition("=")[2]) if given else GPU_MEMORY
    except ValueError:
        gpu_memory = math.nan
    if not 0 < gpu_memory < math.inf:
        return complain([f"{given[-1]}: must be a positive number of GiB"])
    arguments = [a for a in sys.argv[1:] if a not in given]
    return hydra_command(
        "train", lambda config: plan(resolved(config), gpu_memory * GIB), arguments, "nothing was changed"
    )


if __name__ == "__main__":
    sys.exit(main())
