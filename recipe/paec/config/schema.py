"""Typed configuration of this recipe, and the one registration that lets Hydra see the methods.

The defaults of a method live in its dataclass in `paec_loss.methods` and nowhere else; `configs/method/*.yaml` hold
only what a preset changes. The defaults of a run live in `configs/`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from paec_loss.methods import METHODS

TRAINER_MODES = {mode: f"paec_{mode}" for mode in ("sync", "colocate_async", "separate_async")}
"""verl's trainer mode -> the name under which this recipe's trainer of that mode is registered."""

RENAMED_FIELDS = {"statistics": "statistics_from"}
"""Former name of a method's field -> its current name."""

OWN_SURROGATE = "method"
"""Name of verl's policy loss if a method has its own (`recipe.paec.actor.loss`)."""


def register_methods() -> None:
    """Register each method with Hydra as `method=<name>` and, in addition to another, `also=<name>`."""
    store = ConfigStore.instance()
    for name, method in METHODS.items():
        node = {"_target_": f"{method.__module__}.{method.__name__}", **asdict(method())}
        store.store(group="method", name=name, node=node)
        store.store(group="also", name=name, node=node, package=f"also.{name}")


@dataclass
class RunConfig:
    """Hydra section `run`: where a run is stored and how it is monitored. Types only; the defaults are in configs/."""

    experiment: str
    """Name of the experiment, set by configs/experiment/*.yaml."""
    name: str
    """Name of the run: the experiment, the method, and a suffix from the overrides that make it a different run."""
    root: str
    """Folder that holds the runs."""
    directory: str
    """Folder of this run."""
    prepare_command: str | None
    """Python arguments that create model and data before they are checked, or null."""
    prepare_dir: str | None
    """Folder in which `prepare_command` creates them."""
    dry_run: bool
    """Check everything, start nothing (`--dry-run`)."""
    print_config: bool
    """Print the resolved configuration, some 1,200 lines (`--print-config`)."""
    fresh: bool
    """Delete what an earlier run left in `directory` and start at step 0."""
    stall_timeout: float
    """Seconds without a heartbeat from the trainer after which the run is stopped with an error."""
    time_limit: float | None
    """Seconds after which the training process is stopped in any case, null: no limit."""
    keep_checkpoints: int
    """How many of the newest complete checkpoints are kept; others are deleted after a newer one is complete."""
    keep_best: int
    """How many of the best ones are also kept, by `best_metric`; only steps with a validation have one."""
    best_metric: str | None
    """Validation metric that decides which checkpoint is best (higher is better), null: mean of all avg@n."""
    export: bool
    """Export the last checkpoint as a Hugging Face folder when training has finished."""
    poll_interval: float
    """Seconds between looks at the rollout queue (verl's own default, 2.0, has no config key)."""
    alert: str | None
    """URL to which an event of the run is posted as one JSON line (docs/watch.md), or null. Recorded as its host."""
    record_tokens: int
    """Prompts of every step, and of every validation, whose responses' token statistics are recorded in `tokens/`
    (docs/tokens.md), 0: none.
    The default becomes 0 where the log-prob pass has none (`resolve.no_statistics`)."""
    overrides: list[str]
    """The command line, recorded."""


@dataclass
class ModelSection:
    """Hydra section `model`: what is trained."""

    path: str
    """Folder or hub id of a Hugging Face causal language model."""
    context_length: int
    """Longest prompt + response the model was trained for, tokens; 0: not checked, and then
    actor_rollout_ref.rollout.max_model_len, whose default it is in the Qwen experiments, must be set too."""
    obtain: str
    """Command that gets the model, shown to a user who does not have it."""
    chat_template: str | None
    """Jinja chat template that replaces the tokenizer's, or null."""


@dataclass
class ClusterSection:
    """Hydra section `cluster`: what it runs on."""

    platform: str
    """`cuda` or `cpu`."""
    nodes: int
    gpus_per_node: int
    """GPUs per node, or worker processes per node on `cpu`."""
    num_cpus: int | None
    """CPUs that Ray may schedule on this node, null: all."""
    ray_address: str | None
    """Address of a running Ray cluster to join, null: start one here."""
    tensor_parallel: int
    """vLLM tensor-parallel size."""
    sequence_parallel: int
    """Ulysses sequence-parallel size of the actor."""
    rollout_nodes: int
    """Additional nodes with GPUs for rollout only (mode=separate_async)."""
    rollout_gpus_per_node: int
    """Rollout GPUs per such node."""
    weight_transfer: str
    """verl's checkpoint engine that carries weights to those GPUs."""
    attention: str
    """The actor's attention, by transformers' name; `auto`: flash_attention_2 where it is installed, else packed_sdpa,
    or sdpa for padded rows."""
    enforce_eager: bool
    """vLLM without compilation and CUDA graphs: it starts sooner and generates more slowly."""
    compile: bool
    """torch.compile for what verl's engine computes itself (the entropy of a reference policy)."""
    fork_workers: bool
    """Ray forks its workers from the driver, with all libraries imported; only where this run starts Ray itself."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment of every worker."""


@dataclass
class LoraSection:
    """Hydra section `lora`: train low-rank adapters on top of frozen weights."""

    rank: int
    """0: no adapters, all weights are trained."""
    alpha: int
    """The adapters' output is multiplied by alpha / rank."""
    target_modules: Any
    """`all-linear`, or a list of module names."""
    merge: bool
    """Send the merged weights to vLLM instead of the adapters; verl rounds them to bfloat16."""


SECTIONS: dict[str, Any] = {"run": RunConfig, "model": ModelSection, "cluster": ClusterSection, "lora": LoraSection}


@dataclass
class ProtocolSection:
    """Hydra group `protocol`: how responses are sampled. Scores of different protocols are not comparable."""

    name: str
    samples: int
    """Responses per problem."""
    samples_of: dict[str, int]
    """The same for single benchmarks, by data source."""
    temperature: float
    """0: greedy."""
    top_p: float
    top_k: int
    """-1: no limit."""
    max_tokens: int
    """Longest response, tokens; if the model's context leaves less, a note says so."""


@dataclass
class EngineSection:
    """Fields of vLLM's AsyncEngineArgs; None leaves vLLM's default."""

    dtype: str
    enforce_eager: bool
    max_num_seqs: int | None
    gpu_memory_utilization: float | None
    tensor_parallel_size: int


@dataclass
class EvaluatedSection:
    """What is evaluated; `model=X` on the command line is `model.path=X`."""

    path: str | None
    """Hugging Face folder or hub id, checkpoint, or run directory."""


@dataclass
class GraderSection:
    """The grader processes (recipe.grading.GraderPool)."""

    workers: int | None
    """Processes; None: the pool's own default."""


@dataclass
class RewardSection:
    """How responses are scored."""

    scorers: dict[str, str]
    """Data source -> scorer, before the table of recipe.grading.sources."""


@dataclass
class EvaluationConfig:
    """`configs/evaluate.yaml`, which explains each key."""

    model: EvaluatedSection
    steps: list[int] | None
    benchmarks: list[str]
    data_root: str
    samples: str | None
    output: str | None
    fresh: bool
    seed: int
    chat_template: str | None
    apply_chat_template_kwargs: dict[str, Any]
    context_length: int | None
    trained_on: list[str] | None
    dry_run: bool
    print_config: bool
    stall_timeout: float
    protocol: ProtocolSection
    cluster: ClusterSection
    engine: EngineSection
    grader: GraderSection
    reward: RewardSection
