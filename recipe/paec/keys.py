"""Which keys of a training a user may set, and what they may hold: tables, and the checks that read them.

`check_overrides` looks at a command line before anything is composed, `check_values` at a resolved configuration. Keys
that the recipe sets itself, from its own sections or because it relies on them, are refused: they would pass every
other check and then mean something else. Nothing here imports torch or verl.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from recipe.paec.config import RENAMED_FIELDS, EvaluationConfig

GROUPS = ("experiment", "method", "also", "base", "model", "data", "cluster", "mode", "curriculum")
"""Groups of configs/: `<group>=<file>` chooses a file."""

TOP_LEVEL = (
    *("run", "seed", "method", "also", "model", "lora", "cluster"),
    *("actor_rollout_ref", "algorithm", "data", "ray_kwargs", "reward", "trainer", "transfer_queue"),
    *("critic", "custom_reward_function", "distillation", "global_profiler", "model_engine", "reward_model"),
    *("sandbox_fusion", "skip", "identity"),
)
"""Top-level keys of a composed configuration: the recipe's, verl's that are used, verl's that are not."""

_ACTOR, _ROLLOUT, _MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))

OWNED = {
    "run.experiment": "experiment=... (the file), run.name (the name)",
    f"{_MODEL}.path": "model.path",
    f"{_MODEL}.custom_chat_template": "model.chat_template",
    f"{_MODEL}.lora_rank": "lora.rank",
    f"{_MODEL}.lora_alpha": "lora.alpha",
    f"{_MODEL}.target_modules": "lora.target_modules",
    f"{_MODEL}.lora": "lora.rank, lora.alpha, lora.target_modules or lora.merge",
    f"{_MODEL}.tokenizer_path": "model.path, a folder with the tokenizer beside the weights",
    f"{_MODEL}.hf_config_path": "model.path, a folder with config.json beside the weights",
    f"{_ACTOR}.data_loader_seed": "seed",
    f"{_ACTOR}.rollout_n": f"{_ROLLOUT}.n",
    f"{_ACTOR}.grad_clip": f"{_ACTOR}.optim.clip_grad",
    f"{_ACTOR}.optim.total_training_steps": "trainer.total_training_steps",
    f"{_ACTOR}.ulysses_sequence_parallel_size": "cluster.sequence_parallel",
    f"{_ACTOR}.fsdp_config.ulysses_sequence_parallel_size": "cluster.sequence_parallel",
    f"{_ACTOR}.fsdp_config.methods": "method=... and also=...",
    f"{_ACTOR}.fsdp_config.clip": f"{_ACTOR}.clip_ratio_low, {_ACTOR}.clip_ratio_high or {_ACTOR}.clip_ratio_c",
    f"{_ACTOR}.fsdp_config.seed": "seed",
    "actor_rollout_ref.ref.rollout_n": f"{_ROLLOUT}.n",
    "actor_rollout_ref.ref.ulysses_sequence_parallel_size": "cluster.sequence_parallel",
    f"{_ROLLOUT}.tensor_model_parallel_size": "cluster.tensor_parallel",
    f"{_ROLLOUT}.seed": "seed",
    f"{_ROLLOUT}.prompt_length": "data.max_prompt_length",
    f"{_ROLLOUT}.response_length": "data.max_response_length",
    f"{_ROLLOUT}.nnodes": "cluster.rollout_nodes (mode=separate_async)",
    f"{_ROLLOUT}.n_gpus_per_node": "cluster.rollout_gpus_per_node (mode=separate_async)",
    f"{_ROLLOUT}.checkpoint_engine.backend": "cluster.weight_transfer",
    "data.seed": "seed",
    "trainer.nnodes": "cluster.nodes",
    "trainer.n_gpus_per_node": "cluster.gpus_per_node",
    "trainer.device": "cluster=cpu or a cluster with GPUs (configs/cluster)",
    "trainer.experiment_name": "run.name",
    "trainer.default_local_dir": "run.root or run.directory",
    "trainer.rollout_data_dir": "run.root or run.directory",
    "trainer.validation_data_dir": "run.root or run.directory",
    "trainer.max_actor_ckpt_to_keep": "run.keep_checkpoints",
    "trainer.total_epochs": "trainer.total_training_steps",
    "trainer.resume_mode": "the same command, which resumes by itself, or run.fresh=true, which starts over",
    "trainer.resume_from_path": "the same command, which resumes by itself, or run.fresh=true, which starts over",
    "trainer.v1.trainer_mode": "mode=sync, mode=colocate_async or mode=separate_async",
    "ray_kwargs.ray_init.num_cpus": "cluster.num_cpus",
    "ray_kwargs.ray_init.num_gpus": "cluster.gpus_per_node, cluster.num_cpus",
    "ray_kwargs.ray_init.address": "cluster.ray_address",
    "ray_kwargs.ray_init.runtime_env.env_vars": "cluster.env",
}
"""Keys that the recipe sets from its own -> what to use. A key covers everything below it."""

FIXED = {
    "identity": "it is made of the whole configuration",
    "run.overrides": "it records the command line",
    "model_engine": "the actor is FSDP",
    "critic": "no estimator of this recipe has a critic",
    "custom_reward_function": "the score is recipe.grading's (docs/grading.md)",
    "reward.custom_reward_function": "the score is recipe.grading's (docs/grading.md)",
    "reward_model": "the score is recipe.grading's, no model's (docs/grading.md)",
    "reward.reward_model": "the score is recipe.grading's, no model's (docs/grading.md)",
    "sandbox_fusion": "no response is run as code (docs/grading.md)",
    "reward.sandbox_fusion": "no response is run as code (docs/grading.md)",
    "trainer.use_v1": "the recipe extends this trainer of verl's",
    f"{_MODEL}.external_lib": "it loads the recipe into every worker",
    f"{_ACTOR}.fsdp_config._target_": "the methods come with it",
    f"{_ROLLOUT}.name": "the rollouts are vLLM's",
    f"{_ROLLOUT}.mode": "the trainers take async rollouts alone",
    f"{_ROLLOUT}.checkpoint_engine.custom_backend_module": "mode=separate_async sets it",
}
"""Keys that cannot be changed -> why. A key covers everything below it."""

FREE = {
    f"{_ROLLOUT}.max_model_len": "the experiments give a default that fits the model; a shorter one saves memory",
    f"{_MODEL}.override_config.attn_implementation": "cluster.attention is its default; read from here alone",
    f"{_ACTOR}.use_torch_compile": "cluster.compile is the default of all four, which may differ",
    f"{_ACTOR}.fsdp_config.use_torch_compile": "as above",
    "actor_rollout_ref.ref.use_torch_compile": "as above",
    "actor_rollout_ref.ref.fsdp_config.use_torch_compile": "as above",
    f"{_ROLLOUT}.enforce_eager": "cluster.enforce_eager is its default; read from here alone",
    f"{_ACTOR}.loss_scale_factor": "base=dr_grpo gives the usual constant; any other is a choice",
}
"""Keys with an interpolation in configs/ that is a default alone -> why they may be overridden."""


# ---- what a key may hold ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What one key may hold."""

    accepts: Callable[[Any], bool]
    says: str
    """The sentence's end: "must be ..."."""
    options: tuple[str, ...] = ()
    """Of a choice, for "did you mean"."""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _or(allowed: Sequence[Any], rule: Rule, words: str) -> Rule:
    """`rule`, or one of `allowed`, which `words` explains."""
    # 0 == False: the type counts too.
    others = {(type(value), value) for value in allowed}
    return Rule(lambda v: _hashable(v) in others or rule.accepts(v), f"{rule.says}, or {words}", rule.options)


def _hashable(value: Any) -> Any:
    return (type(value), value) if isinstance(value, str | int | float | None) else None


def _whole(least: int, most: float = math.inf) -> Rule:
    top = f" and at most {most}" if most < math.inf else ""
    return Rule(lambda v: _is_whole(v) and least <= v <= most, f"must be a whole number of at least {least}{top}")


def _number(accepts: Callable[[float], bool], says: str) -> Rule:
    return Rule(lambda v: _is_number(v) and accepts(v), says)


def _choice(*options: str) -> Rule:
    return Rule(lambda v: isinstance(v, str) and v in options, f"must be one of {', '.join(options)}", options)


def _are_files(value: Any) -> bool:
    files = [value] if isinstance(value, str) else value
    return isinstance(files, list | ListConfig) and len(files) > 0 and all(isinstance(f, str) and f for f in files)


def _are_modules(value: Any) -> bool:
    return value == "all-linear" or (isinstance(value, list | ListConfig) and _are_files(value))


def _are_betas(value: Any) -> bool:
    return isinstance(value, list | ListConfig) and len(value) == 2 and all(_is_number(v) and 0 <= v < 1 for v in value)


def _are_loggers(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list | ListConfig) and all(name in LOGGERS for name in names)


COUNT = _whole(1)
COUNT_OR_NULL = _or([None], COUNT, "null")
COUNT_OR_ALL = _or([-1], COUNT, "-1: all")
INTERVAL = _or([-1], COUNT, "-1: never")
TOP_K = _or([-1], COUNT, "-1: no limit")
POSITIVE = _number(lambda v: v > 0, "must be a positive number")
NOT_NEGATIVE = _number(lambda v: v >= 0, "must be a number of at least 0")
SHARE = _number(lambda v: 0 < v <= 1, "must be a number in (0, 1]")
FRACTION = _number(lambda v: 0 <= v <= 1, "must be a number in [0, 1]")
FLAG = Rule(lambda v: isinstance(v, bool), "must be true or false")
TEXT = Rule(lambda v: isinstance(v, str) and v.strip() != "", "must be text, and not empty")
FILES = Rule(_are_files, "must name a file, or a list of at least one: '[a.parquet,b.parquet]'")

REPLICAS = 2**16
"""vLLM's replicas add their number to the seed."""
SEED = _whole(0, 2**32 - REPLICAS)
"""NumPy takes seeds below 2^32, and every vLLM worker gives it its own."""

GROUPED = ("grpo", "grpo_passk", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "gpg")
"""verl's advantage estimators that compare the responses to one prompt."""
ESTIMATORS = (*GROUPED, "reinforce_plus_plus", "reinforce_plus_plus_baseline")
"""verl's advantage estimators that work in this recipe."""
UNSUPPORTED = {
    "gae": "it needs a critic",
    "remax": "it needs greedy responses beside the sampled ones",
    "gdpo": "it needs several rewards a response",
    "optimal_token_baseline": "it needs sums over the vocabulary that the actor does not keep",
    "tir_optimal_token_baseline": "it needs sums over the vocabulary that the actor does not keep",
}
"""verl's other advantage estimators, and what they lack here."""
LOSS_MODES = ("vanilla", "dppo_tv", "dppo_kl", "gspo", "sapo", "gpg", "clip_cov", "kl_cov", "geo_mean", "dro", "cispo")
"""verl's policy losses; `method` and `bypass_mode` are set by a method and by algorithm.rollout_correction."""
ONE_CLIP_RATIO = ("dppo_tv", "dppo_kl")
"""The policy losses that read clip_ratio; all others have clip_ratio_low and clip_ratio_high."""
LOGGERS = (
    *("console", "wandb", "tensorboard", "mlflow", "swanlab", "vemlp_wandb", "clearml", "trackio", "file"),
    "rl_insight",
)
"""verl's loggers."""
AGGREGATIONS = ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")

RULES: dict[str, Rule] = {
    "seed": SEED,
    "run.name": TEXT,
    "run.root": TEXT,
    "run.directory": TEXT,
    "run.keep_checkpoints": COUNT,
    "run.keep_best": _whole(0),
    "run.stall_timeout": POSITIVE,
    "run.time_limit": _or([None], POSITIVE, "null"),
    "run.poll_interval": POSITIVE,
    "model.path": TEXT,
    "model.chat_template": _or([None], TEXT, "null"),
    "model.context_length": _whole(0),
    "lora.rank": _whole(0),
    "lora.alpha": COUNT,
    "lora.target_modules": Rule(_are_modules, "must be all-linear, or a list of module names: '[q_proj,v_proj]'"),
    "cluster.platform": _choice("cuda", "cpu"),
    "cluster.nodes": COUNT,
    "cluster.gpus_per_node": COUNT,
    "cluster.num_cpus": COUNT_OR_NULL,
    "cluster.tensor_parallel": COUNT,
    "cluster.sequence_parallel": COUNT,
    "cluster.rollout_nodes": _whole(0),
    "cluster.rollout_gpus_per_node": _whole(0),
    "data.train_files": FILES,
    "data.val_files": FILES,
    "data.train_batch_size": COUNT,
    "data.max_prompt_length": COUNT,
    "data.max_response_length": COUNT,
    "data.train_max_samples": COUNT_OR_ALL,
    "data.val_max_samples": COUNT_OR_ALL,
    "data.val_batch_size": COUNT_OR_NULL,
    "data.dataloader_num_workers": _whole(0),
    "data.shuffle": FLAG,
    "data.filter_overlong_prompts": FLAG,
    "data.truncation": _choice("error", "left", "right", "middle"),
    "algorithm.adv_estimator": _choice(*ESTIMATORS),
    "algorithm.norm_adv_by_std_in_grpo": FLAG,
    "algorithm.use_kl_in_reward": FLAG,
    "algorithm.gamma": FRACTION,
    "algorithm.lam": FRACTION,
    "algorithm.kl_ctrl.kl_coef": NOT_NEGATIVE,
    "algorithm.filter_groups.enable": FLAG,
    "algorithm.filter_groups.max_num_gen_batches": _whole(0),
    f"{_MODEL}.use_remove_padding": FLAG,
    f"{_MODEL}.use_fused_kernels": FLAG,
    f"{_MODEL}.enable_gradient_checkpointing": FLAG,
    f"{_MODEL}.trust_remote_code": FLAG,
    f"{_ACTOR}.strategy": _choice("fsdp2", "fsdp"),
    f"{_ACTOR}.ppo_mini_batch_size": COUNT,
    f"{_ACTOR}.ppo_micro_batch_size_per_gpu": COUNT_OR_NULL,
    f"{_ACTOR}.ppo_max_token_len_per_gpu": COUNT,
    f"{_ACTOR}.ppo_epochs": COUNT,
    f"{_ACTOR}.use_dynamic_bsz": FLAG,
    f"{_ACTOR}.shuffle": FLAG,
    f"{_ACTOR}.clip_ratio": POSITIVE,
    f"{_ACTOR}.clip_ratio_low": FRACTION,
    f"{_ACTOR}.clip_ratio_high": NOT_NEGATIVE,
    f"{_ACTOR}.clip_ratio_c": _number(lambda v: v > 1, "must be a number > 1"),
    f"{_ACTOR}.loss_agg_mode": _choice(*AGGREGATIONS),
    f"{_ACTOR}.loss_scale_factor": _or([None], POSITIVE, "null"),
    f"{_ACTOR}.policy_loss.loss_mode": _or(["method", "bypass_mode"], _choice(*LOSS_MODES), "what a method brings"),
    f"{_ACTOR}.entropy_coeff": _number(lambda v: True, "must be a finite number"),
    f"{_ACTOR}.use_kl_loss": FLAG,
    f"{_ACTOR}.kl_loss_coef": NOT_NEGATIVE,
    f"{_ACTOR}.use_torch_compile": FLAG,
    f"{_ACTOR}.optim.lr": POSITIVE,
    f"{_ACTOR}.optim.betas": Rule(_are_betas, "must be two numbers in [0, 1): '[0.9,0.999]'"),
    f"{_ACTOR}.optim.weight_decay": NOT_NEGATIVE,
    f"{_ACTOR}.optim.clip_grad": POSITIVE,
    f"{_ACTOR}.optim.lr_warmup_steps": _or([-1], _whole(0), "-1: lr_warmup_steps_ratio"),
    f"{_ACTOR}.optim.lr_warmup_steps_ratio": FRACTION,
    f"{_ACTOR}.optim.lr_scheduler_type": _choice("constant", "cosine"),
    f"{_ACTOR}.optim.min_lr_ratio": _or([None], FRACTION, "null"),
    f"{_ACTOR}.fsdp_config.model_dtype": _choice("fp32", "float32", "bf16", "bfloat16", "fp16", "float16"),
    f"{_ACTOR}.fsdp_config.param_offload": FLAG,
    f"{_ACTOR}.fsdp_config.optimizer_offload": FLAG,
    f"{_ACTOR}.fsdp_config.offload_policy": FLAG,
    f"{_ACTOR}.fsdp_config.use_torch_compile": FLAG,
    f"{_ACTOR}.fsdp_config.full_determinism": FLAG,
    f"{_ACTOR}.fsdp_config.fsdp_size": COUNT_OR_ALL,
    f"{_ACTOR}.fsdp_config.fused_head": FLAG,
    f"{_ACTOR}.fsdp_config.head_chunk_size": COUNT_OR_NULL,
    f"{_ROLLOUT}.n": COUNT,
    f"{_ROLLOUT}.temperature": POSITIVE,
    f"{_ROLLOUT}.top_p": SHARE,
    f"{_ROLLOUT}.top_k": TOP_K,
    f"{_ROLLOUT}.dtype": _choice("bfloat16", "float16", "float32", "half", "float", "auto"),
    f"{_ROLLOUT}.gpu_memory_utilization": SHARE,
    f"{_ROLLOUT}.enforce_eager": FLAG,
    f"{_ROLLOUT}.free_cache_engine": FLAG,
    f"{_ROLLOUT}.enable_chunked_prefill": FLAG,
    f"{_ROLLOUT}.enable_prefix_caching": FLAG,
    f"{_ROLLOUT}.calculate_log_probs": FLAG,
    f"{_ROLLOUT}.max_num_batched_tokens": COUNT,
    f"{_ROLLOUT}.max_model_len": COUNT_OR_NULL,
    f"{_ROLLOUT}.max_num_seqs": COUNT,
    f"{_ROLLOUT}.log_prob_max_token_len_per_gpu": COUNT,
    f"{_ROLLOUT}.log_prob_use_dynamic_bsz": FLAG,
    f"{_ROLLOUT}.agent.num_workers": COUNT,
    f"{_ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes": COUNT,
    f"{_ROLLOUT}.val_kwargs.n": COUNT,
    f"{_ROLLOUT}.val_kwargs.temperature": NOT_NEGATIVE,
    f"{_ROLLOUT}.val_kwargs.top_p": SHARE,
    f"{_ROLLOUT}.val_kwargs.top_k": TOP_K,
    f"{_ROLLOUT}.val_kwargs.do_sample": FLAG,
    "reward.num_workers": COUNT,
    "trainer.total_training_steps": COUNT,
    "trainer.save_freq": INTERVAL,
    "trainer.test_freq": INTERVAL,
    "trainer.val_before_train": FLAG,
    "trainer.balance_batch": FLAG,
    "trainer.log_val_generations": _whole(0),
    "trainer.critic_warmup": _whole(0),
    "trainer.logger": Rule(_are_loggers, f"must be a list of {', '.join(LOGGERS)}", LOGGERS),
}
"""Key -> what it may hold, for the keys that are often set. What verl alone knows is checked by verl (`--dry-run`)."""

MISSING = object()


EVALUATION_RULES: dict[str, Rule] = {
    "seed": SEED,
    "cluster.nodes": COUNT,
    "cluster.gpus_per_node": COUNT,
    "cluster.num_cpus": COUNT_OR_NULL,
    "cluster.tensor_parallel": COUNT,
    "engine.dtype": RULES[f"{_ROLLOUT}.dtype"],
    "engine.max_num_seqs": COUNT_OR_NULL,
    "engine.gpu_memory_utilization": _or([None], SHARE, "null"),
}
"""The same of an evaluation."""

PATHS = ("run.name", "run.root", "run.directory", "model.path", "data.train_files")
"""Keys that are used while a configuration is resolved."""


def check_values(
    config: DictConfig, rules: Mapping[str, Rule] = RULES, names: Iterable[str] | None = None
) -> list[str]:
    """One sentence for every key of `rules` (or those of `names` alone) that holds something else."""
    chosen = rules if names is None else names
    found = ((key, OmegaConf.select(config, key, default=MISSING), rules[key]) for key in chosen)
    return [_sentence(key, value, rule) for key, value, rule in found if value is MISSING or not rule.accepts(value)]


def _sentence(key: str, value: Any, rule: Rule) -> str:
    if value is MISSING:
        return f"{key} is not there: do not delete it (~), give it a value"
    if key == "algorithm.adv_estimator" and value in UNSUPPORTED:
        return f"{key}={value}: {UNSUPPORTED[value]}, which this recipe does not have: {rule.says}"
    return f"{key}={shown(value)}: {rule.says}{closest(value, rule.options)}"


def shown(value: Any) -> str:
    """A value as an override writes it."""
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def closest(value: Any, options: Sequence[str], ask: str = "; did you mean {}?") -> str:
    """`ask` with the option that is most like `value`; "" without any."""
    found = difflib.get_close_matches(str(value), options, n=1)
    return ask.format(found[0]) if found else ""


# ---- the command line ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """What a command's overrides are looked up in."""

    groups: tuple[str, ...]
    top_level: tuple[str, ...]
    owned: Mapping[str, str]
    fixed: Mapping[str, str]
    sections: frozenset[str]
    """Keys that hold others."""
    needed: frozenset[str]
    """Keys that must not be deleted."""

    def owner(self, key: str) -> str | None:
        """The entry of `owned` or `fixed` that covers a key."""
        parts = key.split(".")
        above = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
        return next((name for name in above if name in self.owned or name in self.fixed), None)


def _sections(*names: str) -> frozenset[str]:
    return frozenset(".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1))


TRAINING = Table(
    groups=GROUPS,
    top_level=TOP_LEVEL,
    owned=OWNED,
    fixed=FIXED,
    sections=_sections(
        *(*OWNED, *FIXED, *RULES, *(f"{name}.KEY" for name in TOP_LEVEL if name not in ("seed", "identity"))),
        *("cluster.env.NAME", "algorithm.rollout_correction.KEY", f"{_MODEL}.override_config.KEY"),
    ),
    needed=frozenset(RULES),
)
EVALUATION = Table(
    groups=("protocol", "cluster"),
    top_level=tuple(field.name for field in fields(EvaluationConfig)),
    owned={"engine.tensor_parallel_size": "cluster.tensor_parallel"},
    fixed={
        section: "an evaluation does not read it; its engine's settings are engine.*"
        for section in ("actor_rollout_ref", "trainer", "reward", "ray_kwargs", "transfer_queue")
    },
    sections=_sections("cluster.env.NAME", *(f"{name}.KEY" for name in ("engine", "grader", "model"))),
    needed=frozenset(field.name for field in fields(EvaluationConfig)),
)


def check_overrides(overrides: Sequence[str], table: Table = TRAINING) -> list[str]:
    """One sentence for every override that the command would not follow; one that Hydra cannot read is left to it."""
    parsed = _parsed(overrides)
    return [problem for override in parsed for problem in _check(override, table)] + _methods_twice(parsed)


def given_twice(overrides: Sequence[str]) -> list[str]:
    """A note for every key or group that stands on the command line more than once: Hydra takes the last."""
    last: dict[str, tuple[str, int]] = {}
    for override in _parsed(overrides):
        key = override.get_key_element().lstrip("+~")
        last[key] = (override.input_line, last.get(key, ("", 0))[1] + 1)
    return [f"{key} is given {times} times: {line} counts" for key, (line, times) in last.items() if times > 1]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    parser, found = OverridesParser.create(), []
    for line in overrides:
        try:
            found.append(parser.parse_override(line))
        except HydraException:
            continue
    return found


def _check(override: Override, table: Table) -> Iterator[str]:
    key, line = override.key_or_group, override.input_line
    top, sweep = key.split(".")[0], override.is_sweep_override()
    value = None if sweep else override.value()
    if not key:
        yield f"{line}: not an override: write key=value"
        return
    if top == "hydra" or "/" in key:
        if key == "hydra.searchpath":
            yield f"{line}: hydra.searchpath cannot be changed: verl's defaults are found there"
    elif key not in table.groups and top not in table.top_level and top not in table.fixed:
        if override.is_add():
            hint = closest(top, table.top_level, "did you mean {}?") or "use a key of a section that exists"
            yield f"{line}: there is no section {top}, nothing would read it: {hint}"
    elif override.is_delete():
        if key in table.groups:
            yield f"{line}: choose another {key} (a file of configs/{key}) instead of deleting it"
        elif key in table.sections or key in table.needed or table.owner(key) or top in ("method", "also"):
            yield f"{line}: this key is needed: give it a value instead of deleting it"
    elif key in table.groups and not sweep and not isinstance(value, Mapping):
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in names):
            yield f"{line}: {key} is chosen by name: {key}=<file of configs/{key}>"
    elif (renamed := _renamed_field(key)) and not override.is_add():
        yield f"{line}: this field is called {renamed}"
    elif key.startswith("cluster.env.") and not sweep and not isinstance(value, str | int | float):
        yield f"{line}: a variable of the environment must be text or a number"
    elif _holds_others(key, table) and not sweep and not isinstance(value, Mapping):
        yield f"{line}: {key} holds other keys: set them one by one, {key}.<key>=<value>"
    else:
        for leaf in _leaves(key, value):
            owner = table.owner(leaf)
            if owner in table.owned:
                yield f"{line}: {leaf} is set by the recipe itself: use {table.owned[owner]}"
            elif owner is not None:
                yield f"{line}: {leaf} cannot be changed: {table.fixed[owner]}"


def _holds_others(key: str, table: Table) -> bool:
    is_a_method = key.startswith("also.") and key.count(".") == 1
    return is_a_method or (key in table.sections and table.owner(key) is None)


def _renamed_field(key: str) -> str | None:
    """The key now of a method's field that had another name, such as method.statistics."""
    section, _, field = key.rpartition(".")
    is_field = section == "method" or (section.startswith("also.") and section.count(".") == 1)
    return f"{section}.{RENAMED_FIELDS[field]}" if is_field and field in RENAMED_FIELDS else None


def _leaves(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key


def _methods_twice(parsed: Sequence[Override]) -> list[str]:
    """A method that `also=` names again; the same file composed twice would count once, in silence."""
    chosen = {
        o.key_or_group: o.value() for o in parsed if o.key_or_group in ("method", "also") and not o.is_sweep_override()
    }
    also = chosen.get("also", [])
    names = [chosen.get("method"), *([also] if isinstance(also, str) else also if isinstance(also, list) else [])]
    twice = dict.fromkeys(name for name in names if isinstance(name, str) and names.count(name) > 1)
    return [f"also={name}: {name} acts already; name every method once" for name in twice]
