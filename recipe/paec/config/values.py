"""Allowed values of configuration keys: rules, and the check of a resolved configuration against them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from omegaconf import DictConfig, ListConfig, OmegaConf

ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))

OWN_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
"""The import path of a class, which `method=` takes in place of a name."""


@dataclass(frozen=True)
class Rule:
    """The allowed values of one key."""

    accepts: Callable[[Any], bool]
    says: str
    """End of the error message: "must be ..."."""
    options: tuple[str, ...] = ()
    """Options of a choice, for "did you mean"."""
    remedy: Callable[[str, Any, str], str] | None = None
    """What the message adds: (key, value, as the command line gives it) -> text."""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _or(allowed: Sequence[Any], rule: Rule, words: str) -> Rule:
    """`rule`, or one of `allowed`, which `words` explains."""
    # 0 == False: the type counts too.
    others = {(type(value), value) for value in allowed}
    return replace(rule, accepts=lambda v: _hashable(v) in others or rule.accepts(v), says=f"{rule.says}, or {words}")


def _hashable(value: Any) -> Any:
    return (type(value), value) if isinstance(value, str | int | float | None) else None


def _whole(least: int, most: float = math.inf) -> Rule:
    top = f" and <= {most}" if most < math.inf else ""
    return Rule(lambda v: _is_whole(v) and least <= v <= most, f"must be an integer >= {least}{top}")


def _number(accepts: Callable[[float], bool], says: str) -> Rule:
    return Rule(lambda v: _is_number(v) and accepts(v), says)


def _choice(*options: str) -> Rule:
    return Rule(lambda v: isinstance(v, str) and v in options, f"must be one of {', '.join(options)}", options)


def as_text(key: str, value: Any, given: str) -> str:
    """How to write a text that is read as a number, or as true or false."""
    read = "true or false" if isinstance(value, bool) else "a number"
    return f""", and this is {read}: write '{key}="{given}"'""" if isinstance(value, int | float) else ""


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


def _is_url(value: Any) -> bool:
    """Whether it is a complete http or https URL; a user name would be a secret that urllib does not send."""
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s@]+", value):
        return False
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _are_scorers(value: Any) -> bool:
    """Whether it is a table of names; which names there are, `recipe.grading.sources.check_name` says."""
    return isinstance(value, Mapping | DictConfig) and all(
        isinstance(part, str) and part != "" for pair in value.items() for part in pair
    )


COUNT = _whole(1)
COUNT_OR_NULL = _or([None], COUNT, "null")
COUNT_OR_ALL = _or([-1], COUNT, "-1: all")
INTERVAL = _or([-1], COUNT, "-1: never")
TOP_K = _or([-1], COUNT, "-1: no limit")
POSITIVE = _number(lambda v: v > 0, "must be a number > 0")
NOT_NEGATIVE = _number(lambda v: v >= 0, "must be a number >= 0")
SHARE = _number(lambda v: 0 < v <= 1, "must be a number in (0, 1]")
SHARE_OR_NULL = _or([None], SHARE, "null")
FRACTION = _number(lambda v: 0 <= v <= 1, "must be a number in [0, 1]")
WHOLE = Rule(_is_whole, "must be an integer")
NUMBER = Rule(_is_number, "must be a finite number")
FLAG = Rule(lambda v: isinstance(v, bool), "must be true or false")
TEXT = Rule(lambda v: isinstance(v, str) and v.strip() != "", "must be non-empty text", remedy=as_text)
URL = Rule(_is_url, "must be a URL that begins with http:// or https:// and has no user name")
SCORERS = Rule(_are_scorers, "must be a table: reward.scorers.DATA_SOURCE=package.module:function")
FILES = Rule(_are_files, "must be a file, or a non-empty list of files: '[a.parquet,b.parquet]'")

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
    "remax": "it needs greedy responses in addition to sampled ones",
    "gdpo": "it needs several rewards per response",
    "optimal_token_baseline": "it needs sums over the vocabulary that the actor does not keep",
    "tir_optimal_token_baseline": "it needs sums over the vocabulary that the actor does not keep",
}
"""verl's other advantage estimators, and why they do not work here."""
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
    "run.alert": _or([None], URL, "null"),
    "run.record_tokens": _whole(0),
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
    "data.gen_batch_size": COUNT_OR_NULL,
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
    "algorithm.rollout_correction.bypass_mode": FLAG,
    "algorithm.rollout_correction.rollout_is": _or([None], _choice("token", "sequence"), "null"),
    f"{MODEL}.use_remove_padding": FLAG,
    f"{MODEL}.use_fused_kernels": FLAG,
    f"{MODEL}.enable_gradient_checkpointing": FLAG,
    f"{MODEL}.trust_remote_code": FLAG,
    f"{ACTOR}.strategy": _choice("fsdp2", "fsdp"),
    f"{ACTOR}.ppo_mini_batch_size": COUNT,
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": COUNT_OR_NULL,
    f"{ACTOR}.ppo_max_token_len_per_gpu": COUNT,
    f"{ACTOR}.ppo_epochs": COUNT,
    f"{ACTOR}.use_dynamic_bsz": FLAG,
    f"{ACTOR}.shuffle": FLAG,
    f"{ACTOR}.clip_ratio": POSITIVE,
    f"{ACTOR}.clip_ratio_low": FRACTION,
    f"{ACTOR}.clip_ratio_high": NOT_NEGATIVE,
    f"{ACTOR}.clip_ratio_c": _number(lambda v: v > 1, "must be a number > 1"),
    f"{ACTOR}.loss_agg_mode": _choice(*AGGREGATIONS),
    f"{ACTOR}.loss_scale_factor": _or([None], POSITIVE, "null"),
    f"{ACTOR}.policy_loss.loss_mode": _or(
        ["method", "bypass_mode"], _choice(*LOSS_MODES), "method or bypass_mode, which the recipe sets"
    ),
    f"{ACTOR}.entropy_coeff": NUMBER,
    f"{ACTOR}.use_kl_loss": FLAG,
    f"{ACTOR}.kl_loss_coef": NOT_NEGATIVE,
    f"{ACTOR}.use_torch_compile": FLAG,
    f"{ACTOR}.optim.lr": POSITIVE,
    f"{ACTOR}.optim.betas": Rule(_are_betas, "must be two numbers in [0, 1): '[0.9,0.999]'"),
    f"{ACTOR}.optim.weight_decay": NOT_NEGATIVE,
    f"{ACTOR}.optim.clip_grad": POSITIVE,
    f"{ACTOR}.optim.lr_warmup_steps": _or([-1], _whole(0), "-1: lr_warmup_steps_ratio"),
    f"{ACTOR}.optim.lr_warmup_steps_ratio": FRACTION,
    f"{ACTOR}.optim.lr_scheduler_type": _choice("constant", "cosine"),
    f"{ACTOR}.optim.min_lr_ratio": _or([None], FRACTION, "null"),
    f"{ACTOR}.fsdp_config.model_dtype": _choice("fp32", "float32", "bf16", "bfloat16", "fp16", "float16"),
    f"{ACTOR}.fsdp_config.param_offload": FLAG,
    f"{ACTOR}.fsdp_config.optimizer_offload": FLAG,
    f"{ACTOR}.fsdp_config.offload_policy": FLAG,
    f"{ACTOR}.fsdp_config.use_torch_compile": FLAG,
    f"{ACTOR}.fsdp_config.full_determinism": FLAG,
    f"{ACTOR}.fsdp_config.fsdp_size": COUNT_OR_ALL,
    f"{ACTOR}.fsdp_config.fused_head": FLAG,
    f"{ACTOR}.fsdp_config.head_chunk_size": COUNT_OR_NULL,
    f"{ROLLOUT}.n": COUNT,
    f"{ROLLOUT}.temperature": POSITIVE,
    f"{ROLLOUT}.top_p": SHARE,
    f"{ROLLOUT}.top_k": TOP_K,
    f"{ROLLOUT}.dtype": _choice("bfloat16", "float16", "float32", "half", "float", "auto"),
    f"{ROLLOUT}.gpu_memory_utilization": SHARE,
    f"{ROLLOUT}.enforce_eager": FLAG,
    f"{ROLLOUT}.free_cache_engine": FLAG,
    f"{ROLLOUT}.enable_chunked_prefill": FLAG,
    f"{ROLLOUT}.enable_prefix_caching": FLAG,
    f"{ROLLOUT}.calculate_log_probs": FLAG,
    f"{ROLLOUT}.max_num_batched_tokens": COUNT,
    f"{ROLLOUT}.max_model_len": COUNT_OR_NULL,
    f"{ROLLOUT}.max_num_seqs": COUNT,
    f"{ROLLOUT}.log_prob_max_token_len_per_gpu": COUNT,
    f"{ROLLOUT}.log_prob_use_dynamic_bsz": FLAG,
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": COUNT_OR_NULL,
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": COUNT_OR_NULL,
    f"{ROLLOUT}.agent.num_workers": COUNT,
    f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes": COUNT,
    f"{ROLLOUT}.val_kwargs.n": COUNT,
    f"{ROLLOUT}.val_kwargs.temperature": NOT_NEGATIVE,
    f"{ROLLOUT}.val_kwargs.top_p": SHARE,
    f"{ROLLOUT}.val_kwargs.top_k": TOP_K,
    "reward.num_workers": COUNT,
    "reward.scorers": SCORERS,
    "trainer.total_training_steps": COUNT,
    "trainer.save_freq": INTERVAL,
    "trainer.test_freq": INTERVAL,
    "trainer.val_before_train": FLAG,
    "trainer.log_val_generations": _whole(0),
    "trainer.critic_warmup": _number(lambda v: v == 0, "must be 0: there is no critic, and the actor would not train"),
    "trainer.logger": Rule(_are_loggers, f"must be a list of {', '.join(LOGGERS)}", LOGGERS),
}
"""Key -> allowed values, for the keys that are often set. verl checks what only verl knows (`--dry-run`)."""

MISSING = object()

PATHS = ("run.name", "run.root", "run.directory", "model.path", "data.train_files")
"""Keys that are used while a configuration is resolved."""


def check_values(
    config: DictConfig, rules: Mapping[str, Rule] = RULES, names: Iterable[str] | None = None
) -> list[str]:
    """One sentence for every key of `rules` (or only those of `names`) that has another value."""
    chosen = rules if names is None else names
    found = ((key, OmegaConf.select(config, key, default=MISSING), rules[key]) for key in chosen)
    wrong = [(key, value, rule) for key, value, rule in found if value is MISSING or not rule.accepts(value)]
    given = dict(line.lstrip("+").partition("=")[::2] for line in OmegaConf.select(config, "run.overrides") or [])
    return [_sentence(key, value, rule, given.get(key, shown(value))) for key, value, rule in wrong]


def _sentence(key: str, value: Any, rule: Rule, given: str) -> str:
    if value is MISSING:
        return f"{key} is missing: do not delete it (~), give it a value"
    if key == "algorithm.adv_estimator" and value in UNSUPPORTED:
        return f"{key}={value}: {UNSUPPORTED[value]}, which this recipe does not provide: {rule.says}"
    remedy = rule.remedy(key, value, given) if rule.remedy else closest(value, rule.options)
    return f"{key}={shown(value)}: {rule.says}{remedy}"


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
