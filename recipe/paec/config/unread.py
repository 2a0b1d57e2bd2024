"""Keys of a command line that nothing would read, because of the value of another key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.paec.config.keys import leaves, parsed
from recipe.paec.config.values import ACTOR, ONE_CLIP_RATIO, ROLLOUT, shown

REF = "actor_rollout_ref.ref"
FILTER = "algorithm.filter_groups"
KL = "algorithm.kl_ctrl"
VALIDATION = f"{ROLLOUT}.val_kwargs"


@dataclass(frozen=True)
class Condition:
    """When keys are read."""

    keys: tuple[str, ...]
    of: str
    """The key that decides."""
    holds: Callable[[Any], bool]
    """Whether they are read with this value of it."""
    remedy: str
    idle: tuple[Any, ...] = (None,)
    """Values of the keys that ask for nothing, and may be given all the same."""


MICRO_BATCHES = (
    (f"{ACTOR}.use_dynamic_bsz", f"{ACTOR}.ppo_micro_batch_size_per_gpu", f"{ACTOR}.ppo_max_token_len_per_gpu"),
    *(
        (
            f"{section}.log_prob_use_dynamic_bsz",
            f"{section}.log_prob_micro_batch_size_per_gpu",
            f"{section}.log_prob_max_token_len_per_gpu",
        )
        for section in (ROLLOUT, REF)
    ),
)
"""Of each pass: whether micro-batches are made by tokens, their responses if not, and their tokens if so."""


def _micro_batches(dynamic: str, responses: str, tokens: str) -> tuple[Condition, Condition]:
    """Only one of the two sizes of a micro-batch is read."""
    return (
        Condition((responses,), dynamic, lambda by_tokens: not by_tokens, f"set {tokens}, the tokens of a micro-batch"),
        Condition((tokens,), dynamic, bool, f"set {responses}, the responses of a micro-batch"),
    )


CONDITIONS = (
    *(condition for sizes in MICRO_BATCHES for condition in _micro_batches(*sizes)),
    Condition(
        (f"{ACTOR}.kl_loss_coef", f"{ACTOR}.kl_loss_type"),
        f"{ACTOR}.use_kl_loss",
        bool,
        "set it to true",
        idle=(0,),
    ),
    Condition(
        (f"{KL}.kl_coef", f"{KL}.type", f"{KL}.horizon", f"{KL}.target_kl"),
        "algorithm.use_kl_in_reward",
        bool,
        "set it to true",
        idle=(0,),
    ),
    Condition(
        ("algorithm.gamma",),
        "algorithm.adv_estimator",
        lambda estimator: estimator == "reinforce_plus_plus",
        "only reinforce_plus_plus discounts rewards: leave it out",
        idle=(1,),
    ),
    Condition(
        ("algorithm.lam",),
        "algorithm.adv_estimator",
        lambda estimator: False,
        "only gae reads it, which needs a critic: leave it out",
        idle=(1,),
    ),
    Condition(
        (f"{FILTER}.metric", f"{FILTER}.max_inflight_gen_batches"),
        f"{FILTER}.enable",
        bool,
        "set it to true",
    ),
    Condition(
        (f"{FILTER}.max_num_gen_batches",),
        "trainer.v1.trainer_mode",
        lambda mode: False,
        f"no trainer of this recipe reads it; {FILTER}.max_inflight_gen_batches limits what is generated at once",
        idle=(0,),
    ),
    Condition(
        ("lora.alpha", "lora.target_modules", "lora.merge"),
        "lora.rank",
        lambda rank: rank > 0,
        "set it to the rank of the adapters",
        idle=(False,),
    ),
    Condition(
        (f"{ACTOR}.loss_scale_factor",),
        f"{ACTOR}.loss_agg_mode",
        lambda mode: mode == "seq-mean-token-sum-norm",
        "set it to seq-mean-token-sum-norm",
    ),
    Condition(
        (f"{ACTOR}.optim.min_lr_ratio", f"{ACTOR}.optim.num_cycles"),
        f"{ACTOR}.optim.lr_scheduler_type",
        lambda schedule: schedule == "cosine",
        "set it to cosine",
    ),
    Condition(
        (f"{ACTOR}.clip_ratio",),
        f"{ACTOR}.policy_loss.loss_mode",
        lambda mode: mode in ONE_CLIP_RATIO,
        f"set {ACTOR}.clip_ratio_low and {ACTOR}.clip_ratio_high",
    ),
    Condition(
        ("run.keep_best", "run.best_metric"),
        "trainer.test_freq",
        lambda steps: steps > 0,
        "only a step with a validation can be the best one: set it to a number of steps",
        idle=(None, 0),
    ),
)
"""Checked for what the command line gives, never for what files set."""


def check_config(config: DictConfig) -> list[str]:
    """One sentence for every override whose key is not read."""
    given = dict(_given(config))
    errors = [problem for key, (line, value) in given.items() for problem in _unread(config, key, line, value)]
    actor, validation = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout.val_kwargs
    line, weight = given.get(f"{ACTOR}.kl_loss_coef", ("", 0))
    if weight and actor.use_kl_loss and actor.kl_loss_coef == 0:  # resolve.apply_methods
        errors.append(
            f"{line} has no effect: the method alone reads the reference policy: set {ACTOR}.use_kl_loss=true"
        )
    sampled = [given[key][0] for key in (f"{VALIDATION}.temperature", f"{VALIDATION}.n") if key in given]
    if sampled and validation.temperature == 0 and validation.n > 1:
        errors.append(
            f"{sampled[0]}: the {validation.n} responses to a prompt ({VALIDATION}.n) are the same with "
            f"{VALIDATION}.temperature=0: set it to a number > 0, or {VALIDATION}.n=1"
        )
    return errors


def _unread(config: DictConfig, key: str, line: str, value: Any) -> Iterator[str]:
    for condition in CONDITIONS:
        if key in condition.keys and value not in condition.idle:
            found = OmegaConf.select(config, condition.of)
            if not condition.holds(found):
                yield f"{line} has no effect with {condition.of}={shown(found)}: {condition.remedy}"


def _given(config: DictConfig) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Key -> override and value, for every key that the command line sets."""
    for override in parsed(config.run.overrides):
        if not override.is_delete() and not override.is_sweep_override():
            for key, value in leaves(override.key_or_group, override.value()):
                yield key, (override.input_line, value)
