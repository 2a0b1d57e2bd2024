"""Overrides without an effect: one sentence each, and none where what decides is set."""

from __future__ import annotations

import pytest

from recipe.paec.config import rules, unread
from recipe.paec.config.values import ACTOR, ROLLOUT

REF, FILTER, KL = "actor_rollout_ref.ref", "algorithm.filter_groups", "algorithm.kl_ctrl"
CASES = [
    (f"{ACTOR}.ppo_micro_batch_size_per_gpu=4", f"{ACTOR}.use_dynamic_bsz=true", f"{ACTOR}.use_dynamic_bsz=false"),
    (
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=4",
        f"{ROLLOUT}.log_prob_use_dynamic_bsz=true",
        f"{ROLLOUT}.log_prob_use_dynamic_bsz=false",
    ),
    (
        f"{REF}.log_prob_micro_batch_size_per_gpu=4",
        f"{REF}.log_prob_use_dynamic_bsz=true",
        f"{REF}.log_prob_use_dynamic_bsz=false",
    ),
    (f"{ACTOR}.ppo_max_token_len_per_gpu=128", f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.use_dynamic_bsz=true"),
    (
        f"{ROLLOUT}.log_prob_max_token_len_per_gpu=128",
        f"{ROLLOUT}.log_prob_use_dynamic_bsz=false",
        f"{ROLLOUT}.log_prob_use_dynamic_bsz=true",
    ),
    (
        f"{REF}.log_prob_max_token_len_per_gpu=128",
        f"{REF}.log_prob_use_dynamic_bsz=false",
        f"{REF}.log_prob_use_dynamic_bsz=true",
    ),
    (f"{ACTOR}.kl_loss_coef=0.05", f"{ACTOR}.use_kl_loss=false", f"{ACTOR}.use_kl_loss=true"),
    (f"{KL}.kl_coef=0.1", "algorithm.use_kl_in_reward=false", "algorithm.use_kl_in_reward=true"),
    ("algorithm.gamma=0.9", "algorithm.adv_estimator=grpo", "algorithm.adv_estimator=reinforce_plus_plus"),
    ("algorithm.lam=0.9", "algorithm.adv_estimator=reinforce_plus_plus", None),
    (f"{FILTER}.metric=acc", f"{FILTER}.enable=false", f"{FILTER}.enable=true"),
    (f"{FILTER}.max_inflight_gen_batches=2", f"{FILTER}.enable=false", f"{FILTER}.enable=true"),
    (f"{FILTER}.max_num_gen_batches=2", "trainer.v1.trainer_mode=paec_sync", None),
    ("lora.alpha=64", "lora.rank=0", "lora.rank=8"),
    ("lora.target_modules=[q_proj]", "lora.rank=0", "lora.rank=8"),
    ("lora.merge=true", "lora.rank=0", "lora.rank=8"),
    (
        f"{ACTOR}.loss_scale_factor=32",
        f"{ACTOR}.loss_agg_mode=token-mean",
        f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm",
    ),
    (
        f"{ACTOR}.optim.min_lr_ratio=0.1",
        f"{ACTOR}.optim.lr_scheduler_type=constant",
        f"{ACTOR}.optim.lr_scheduler_type=cosine",
    ),
    (
        f"{ACTOR}.clip_ratio=0.3",
        f"{ACTOR}.policy_loss.loss_mode=vanilla",
        f"{ACTOR}.policy_loss.loss_mode=dppo_tv",
    ),
    ("run.keep_best=3", "trainer.test_freq=-1", "trainer.test_freq=5"),
    ("run.best_metric=val/a/avg@4", "trainer.test_freq=-1", "trainer.test_freq=5"),
]
"""Override, what leaves it without an effect, and what gives it one; None: nothing does."""


@pytest.fixture
def told(tiny_config):
    """told(*given, files=[...]) -> the sentences on a command line, and on settings that files give as well."""

    def check(*given: str, files=()) -> list[str]:
        config = tiny_config(*files, *(override.lstrip("+") for override in given))
        config.run.overrides = list(given)
        return unread.check_config(config)

    return check


@pytest.mark.parametrize("override, without, having", CASES)
def test_an_override_without_an_effect(told, override, without, having):
    (sentence,) = told(override, files=[without])
    assert sentence.startswith(f"{override} has no effect with {without}: ")
    assert told(f"++{override}", files=[without]) == [f"++{sentence}"]
    assert told(files=[without, override]) == [], "of a file"
    if having is not None:
        assert told(override, files=[having]) == told(override, having) == []


def test_every_condition_has_a_case():
    tried = {(override.partition("=")[0], without.partition("=")[0]) for override, without, _ in CASES}
    for condition in unread.CONDITIONS:
        assert [key for key in condition.keys if (key, condition.of) in tried], condition


def test_the_rules_say_it_too(compose):
    (sentence,) = rules.check_config(compose(f"{ACTOR}.ppo_micro_batch_size_per_gpu=1"))
    assert sentence == (
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=1 has no effect with {ACTOR}.use_dynamic_bsz=true: set "
        f"{ACTOR}.ppo_max_token_len_per_gpu, the tokens of a micro-batch"
    )


@pytest.mark.parametrize(
    "override",
    [
        *(f"{ACTOR}.ppo_micro_batch_size_per_gpu=null", f"{ACTOR}.kl_loss_coef=0", f"{KL}.kl_coef=0.0"),
        *("algorithm.gamma=1", "algorithm.lam=1.0", f"{FILTER}.max_num_gen_batches=0", "lora.merge=false"),
        "run.best_metric=null",
    ],
)
def test_a_value_that_asks_for_nothing(told, override):
    assert told(override) == []
    assert told("run.keep_best=0", files=["trainer.test_freq=-1"]) == []


def test_a_dict_of_the_command_line(told):
    assert told("lora={alpha: 64, rank: 8}", files=["lora.rank=8"]) == []
    (sentence,) = told("lora={alpha: 64, merge: false}")
    assert sentence.startswith("lora={alpha: 64, merge: false} has no effect with lora.rank=0: ")


def test_the_weight_of_a_penalty_that_a_method_replaces(compose):
    """sent reads the reference policy itself, and gives verl's own penalty the weight 0."""
    override = f"{ACTOR}.kl_loss_coef=0.05"
    config = compose("method=sent", override)
    assert config.actor_rollout_ref.actor.kl_loss_coef == 0
    assert unread.check_config(config) == [
        f"{override} has no effect: the method alone reads the reference policy: set {ACTOR}.use_kl_loss=true"
    ]
    assert unread.check_config(compose("method=sent", override, f"{ACTOR}.use_kl_loss=true")) == []


def test_several_greedy_responses_to_a_prompt(told):
    greedy, two, one = f"{ROLLOUT}.val_kwargs.temperature=0", f"{ROLLOUT}.val_kwargs.n=2", f"{ROLLOUT}.val_kwargs.n=1"
    remedy = f"set it to a number > 0, or {ROLLOUT}.val_kwargs.n=1"
    (sentence,) = told(greedy, files=[two])
    assert sentence == (
        f"{greedy}: the 2 responses to a prompt ({ROLLOUT}.val_kwargs.n) are the same with {greedy}: {remedy}"
    )
    assert told(two, files=[greedy])[0].startswith(f"{two}: the 2 responses to a prompt")
    assert told(greedy, one) == told(files=[greedy, two]) == told(two) == []
