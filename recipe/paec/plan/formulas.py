"""Memory of a run by formula, on GPUs, hosts and disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omegaconf import DictConfig

from recipe.paec.common.console import GIB
from recipe.paec.common.model_files import model_folder, read_config
from recipe.paec.plan.settings import DTYPES, Setup, has_reference
from recipe.paec.plan.shapes import ModelShape, parameter_count

CONTEXT = 1.0 * GIB
"""CUDA context and NCCL buffers of one process; two share a GPU, the actor's and vLLM's. Assumed, not measured."""
GRAPHS = 1.0 * GIB
"""vLLM's CUDA graphs, which stay in memory while it sleeps. Assumed, not measured."""
STATISTICS = 5 * 1024
"""Bytes that the Triton kernel needs for each row in addition to the logits (docs/kernel.md)."""
KV_BLOCK = 16
"""Tokens of a block of vLLM's KV cache."""
HOST_BASE, HOST_WORKER = 3.4 * GIB, 3.5 * GIB
"""Memory of a node: launcher, Ray and driver; and each worker with its vLLM. Measured on the quick start: 6.9 GiB
with one worker, 10.4 with two (docs/plan.md)."""
CHECKPOINT_REST = 32 * 2**20
"""Bytes of a checkpoint in addition to the states: tokenizer, data loader, bookkeeping. 0.1 MiB in the quick start."""


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
    """Bytes of sdpa's mask over a full micro-batch: [T, T] boolean, and additive for the kernel, once more where it is
    padded. Without checkpointing each layer keeps its additive one for the backward pass. Read, not measured."""
    if not setup.dense_mask:
        return 0
    kept = 1 if setup.checkpointing else shape.layers
    return (setup.tokens * setup.sequence_parallel) ** 2 * (1 + setup.compute_bytes * (kept + 1))


def logits(shape: ModelShape, setup: Setup) -> int:
    """Bytes of logits [T, V], which their gradient overwrites, and of the statistics' own memory.

    The fused head has a chunk of rows at a time, and sums its weight's gradient [V, d] in float32.
    """
    rows = setup.tokens if setup.head_rows is None else min(setup.head_rows, setup.tokens)
    weight_gradient = 0 if setup.head_rows is None else 4 * shape.embedding
    return rows * (shape.vocab * setup.compute_bytes + STATISTICS) + weight_gradient


def gathered(shape: ModelShape, setup: Setup) -> int:
    """Bytes of full parameters and full gradients that exist at the same time under FSDP2.

    At most those of the largest unit (a layer, or embedding or head): the one in use and the one being gathered, and a
    gradient with its copy that is being summed over the ranks.
    """
    return max(shape.layer, shape.embedding) * (3 * setup.compute_bytes + setup.reduce_bytes)


def kv_bytes_per_token(shape: ModelShape, setup: Setup) -> int:
    """Bytes of keys and values of one token on one GPU; heads are divided, and repeated if there are too few."""
    heads = max(1, shape.kv_heads // setup.tensor_parallel)
    return 2 * shape.layers * heads * shape.head_dim * setup.rollout_bytes


def rollout_working_memory(shape: ModelShape, setup: Setup) -> float:
    """Bytes in vLLM's share besides weights and KV cache: a batch of prompt tokens in one MLP, the sampler's float32
    logits (as they come, processed, sorted), CUDA graphs that it counts. vLLM measures this itself; the formula is an
    assumption."""
    row = setup.rollout_bytes * (3 * shape.intermediate / setup.tensor_parallel + 4 * shape.hidden)
    sampler = 3 * 4 * setup.sequences * shape.vocab
    return setup.batched_tokens * row + sampler + GRAPHS * setup.graphs - uncounted_graphs(shape, setup)


def uncounted_graphs(shape: ModelShape, setup: Setup) -> float:
    """Bytes of CUDA graphs that come on top of vLLM's share.

    vLLM 0.24 has two model runners. The newer one does not count its graphs (`profile_cudagraph_memory` is 0), and is
    the default for Qwen3 and Llama, here those without biases, but not for Qwen2 (`vllm/config/vllm.py`).
    """
    return 0.0 if shape.qkv_bias else GRAPHS * setup.graphs


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes per GPU: of each phase by item, and the tokens of the KV cache."""

    phases: dict[str, dict[str, float]]
    kv_tokens: int
    """Tokens in the KV cache of one vLLM replica; negative if not even the weights have room."""
    host: float
    """Bytes of states kept in the memory of one node."""

    def total(self, phase: str) -> float:
        """Bytes of a phase."""
        return sum(self.phases[phase].values())


def estimate(shape: ModelShape, setup: Setup, gpu_memory: float) -> MemoryEstimate:
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
    if beside := uncounted_graphs(shape, setup):
        vllm["vLLM: CUDA graphs beside its share"] = beside
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
    return MemoryEstimate(
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


def host_memory(config: DictConfig) -> float:
    """Bytes of memory that a run takes on one node; a model that does not exist yet counts as 0.

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
