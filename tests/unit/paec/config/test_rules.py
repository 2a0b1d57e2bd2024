"""Rules between keys: one sentence that names the key."""

from __future__ import annotations

import pytest

from recipe.paec.config import rules
from recipe.paec.rollout.rewards import compute_score


@pytest.mark.parametrize("value", ["-1", "0.5", "some", "true"])
def test_number_of_best_checkpoints(tiny_config, value):
    problems = rules.check_config(tiny_config(f"run.keep_best={value}"))
    assert problems == [f"run.keep_best={value}: must be an integer >= 0"]


def test_token_budget(tiny_config):
    for key in ("actor.ppo_max_token_len_per_gpu", "rollout.log_prob_max_token_len_per_gpu"):
        (problem,) = rules.check_config(tiny_config(f"actor_rollout_ref.{key}=95"))
        assert problem.startswith(f"actor_rollout_ref.{key} x cluster.sequence_parallel = 95 is less than prompt")
        assert rules.check_config(tiny_config(f"actor_rollout_ref.{key}=96")) == []


@pytest.mark.parametrize(
    "override, words",
    [
        ("method.rho=1.5", ["method.rho", "1.5"]),
        ("method.top_p=0", ["method.top_p"]),
        ("method.beta=-0.1", ["method.beta"]),
        ("method.rho_min=1.2", ["method.rho_min"]),
        ("method.anchor_steps=0", ["method.anchor_steps"]),
        ("method.mask=soft", ["method.mask", "ramp"]),
        ("method.lambda_low=nan", ["method.lambda_low"]),
        ("trainer.total_training_steps=0", ["trainer.total_training_steps"]),
        ("data.max_response_length=5000", ["data.max_response_length", "512"]),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=17", ["ppo_mini_batch_size", "17"]),
        ("actor_rollout_ref.model.use_fused_kernels=true", ["use_fused_kernels"]),
        ("actor_rollout_ref.actor.strategy=megatron", ["strategy", "fsdp2"]),
        ("cluster.gpus_per_node=many", ["cluster.gpus_per_node"]),
        ("run.keep_checkpoints=0", ["run.keep_checkpoints"]),
        ("trainer.total_training_steps=many", ["trainer.total_training_steps=many"]),
        ("actor_rollout_ref.actor.optim.lr=-1e-6", ["optim.lr"]),
        ("actor_rollout_ref.rollout.temperature=0", ["rollout.temperature"]),
    ],
)
def test_values_out_of_range(compose, override, words):
    problems = rules.check_config(compose(override))
    assert problems and all(word in problems[0] for word in words), problems


SEPARATE = "mode=separate_async"


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["trainer.v1.trainer_mode=sync"], ["trainer.v1.trainer_mode=sync", "mode=separate_async"]),
        (["cluster.rollout_nodes=1", "cluster.rollout_gpus_per_node=1"], ["cluster.rollout_nodes=1"]),
        ([SEPARATE, "cluster.rollout_nodes=0"], ["cluster.rollout_nodes=0", ">= 1"]),
        ([SEPARATE, "cluster.rollout_gpus_per_node=3", "cluster.gpus_per_node=2", "cluster.tensor_parallel=2"], ["3"]),
        ([SEPARATE, "trainer.v1.separate_async.parameter_sync_step=3"], ["parameter_sync_step=3", "2 mini-batches"]),
        ([SEPARATE, "cluster.weight_transfer=nccl"], ["backend=nccl", "choose gloo"]),
        ([SEPARATE, "cluster=gpu_1x8", "cluster.weight_transfer=naive"], ["backend=naive", "choose nccl"]),
        ([SEPARATE, "actor_rollout_ref.hybrid_engine=false"], ["hybrid_engine"]),
        ([SEPARATE, "lora.rank=8"], ["lora.merge=true"]),
        (["lora.rank=-1"], ["lora.rank=-1"]),
        (["lora.alpha=0"], ["lora.alpha=0"]),
        (["lora.rank=many"], ["lora.rank"]),
    ],
)
def test_what_a_mode_or_adapters_cannot_do(compose, overrides, words):
    (problem,) = rules.check_config(compose(*overrides))
    assert all(word in problem for word in words), problem


def test_separate_rollout_takes_gpus_of_its_own(compose):
    config = compose(SEPARATE, "experiment=qwen7b", "cluster=gpu_1x8", "cluster.gpus_per_node=4")
    assert rules.check_config(config) == []
    assert (config.cluster.rollout_nodes, config.cluster.rollout_gpus_per_node) == (1, 4)
    assert config.actor_rollout_ref.rollout.checkpoint_engine.backend == "nccl"
    assert config.trainer.n_gpus_per_node == 4 and config.actor_rollout_ref.rollout.n_gpus_per_node == 4


def test_ulysses_on_cpu_needs_our_attention(compose):
    ranks = ("cluster.gpus_per_node=2", "cluster.sequence_parallel=2")
    assert rules.check_config(compose(*ranks)) == []
    assert "packed_sdpa" in rules.check_config(compose(*ranks, "cluster.attention=sdpa"))[0]


@pytest.mark.parametrize(
    "setting",
    ["algorithm.rollout_correction.bypass_mode=true", "actor_rollout_ref.model.use_fused_kernels=true"],
)
def test_without_statistics_nothing_is_recorded(compose, setting):
    """The default is 0 then; a number that was asked for is an error."""
    assert compose("method=none").run.record_tokens == 4
    config = compose("method=none", setting)
    assert config.run.record_tokens == 0 and rules.check_config(config) == []
    assert rules.check_config(compose("method=none", setting, "run.record_tokens=2")) == [
        f"run.record_tokens=2: with {setting} there are no token statistics to record: set run.record_tokens=0"
    ]
    assert rules.check_config(compose("method=none", "run.record_tokens=-1")) == [
        "run.record_tokens=-1: must be an integer >= 0"
    ]


@pytest.mark.parametrize(
    ("override", "scorers"),
    [
        ("reward.scorers.my_set=my_pkg.my_module:score", {"my_set": "my_pkg.my_module:score"}),
        ("+reward.scorers.my_set=json", {"my_set": "json"}),
        (
            "reward.scorers={my/set: my_pkg:score, gsm8k: math_strict}",
            {"my/set": "my_pkg:score", "gsm8k": "math_strict"},
        ),
    ],
)
def test_scorers_of_a_users_own_need_no_plus_and_reach_the_reward_workers(compose, override, scorers):
    config = compose(override)
    assert dict(config.reward.scorers) == scorers and rules.check_config(config) == []
    assert dict(config.reward.custom_reward_function.reward_kwargs.scorers) == scorers
    assert config.run.name.startswith("tiny_cpu-paec-reward.scorers"), "another scorer is another run"


def test_a_scorer_that_does_not_exist_is_one_sentence(compose):
    (problem,) = rules.check_config(compose("reward.scorers.my_set=exact_mach"))
    assert problem.startswith("reward.scorers.my_set: exact_mach is neither package.module:function nor one of math, ")
    assert problem.endswith("; did you mean exact_match?")


def test_update_and_log_probs_share_the_kind_of_micro_batches(tiny_config):
    """verl has only an assert for it, in the worker."""
    (problem,) = rules.check_config(tiny_config("actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=false"))
    assert problem == (
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=false: verl wants the value of "
        "actor_rollout_ref.actor.use_dynamic_bsz=true: leave it out"
    )


FIXED = "actor_rollout_ref.actor.use_dynamic_bsz=false"
UPDATE, STEP = (f"actor_rollout_ref.{key}_micro_batch_size_per_gpu" for key in ("actor.ppo", "rollout.log_prob"))
OF_REFERENCE = "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu"
TWO_RANKS = ["cluster.gpus_per_node=2", FIXED, "data.train_batch_size=16", "actor_rollout_ref.rollout.n=8"]
TWO_RANKS += ["actor_rollout_ref.actor.ppo_mini_batch_size=8"]
"""32 responses of an update and 64 of a step on each rank."""


@pytest.mark.parametrize(
    "overrides, problems",
    [
        ([f"{UPDATE}=32", f"{STEP}=64"], []),
        ([f"{UPDATE}=6", f"{STEP}=6"], [(UPDATE, 6, 32), (STEP, 6, 64)]),
        ([f"{UPDATE}=64", f"{STEP}=64"], [(UPDATE, 64, 32)]),
        (["mode=separate_async", f"{UPDATE}=32", f"{STEP}=64"], [(STEP, 64, 32)]),
        ([f"{UPDATE}=4", f"{STEP}=4", f"{OF_REFERENCE}=3"], []),
        (
            [f"{UPDATE}=4", f"{STEP}=4", f"{OF_REFERENCE}=3", "actor_rollout_ref.actor.use_kl_loss=true"],
            [(OF_REFERENCE, 3, 64)],
        ),
        (
            [f"{UPDATE}=4", f"{STEP}=4", f"{OF_REFERENCE}=3", "actor_rollout_ref.actor.use_kl_loss=true", "lora.rank=8"]
            + ["lora.merge=true"],
            [],
        ),
    ],
)
def test_micro_batches_divide_what_a_rank_has(compose, overrides, problems):
    given = [o for o in TWO_RANKS if o.partition("=")[0] not in {other.partition("=")[0] for other in overrides}]
    assert rules.check_config(compose(*given, *overrides)) == [
        f"{key}={micro}: must divide the {responses} responses of a data-parallel rank"
        for key, micro, responses in problems
    ]


def test_more_sequence_parallel_ranks_than_workers_are_one_sentence(compose):
    config = compose("cluster.gpus_per_node=1", "cluster.sequence_parallel=2")
    assert rules.check_config(config) == ["cluster.sequence_parallel=2 does not divide the 1 workers"]


WITHOUT = "actor_rollout_ref.rollout.calculate_log_probs=false"
NEEDS = f"{WITHOUT}: algorithm.rollout_correction.%s needs the rollout's log-probs: set it to true"
CORRECTION = "algorithm.rollout_correction"


@pytest.mark.parametrize(
    "overrides, problems",
    [
        ([WITHOUT], []),
        ([f"{CORRECTION}.rollout_is=token"], []),
        ([WITHOUT, f"{CORRECTION}.rollout_is=token"], [NEEDS % "rollout_is=token"]),
        (
            [WITHOUT, f"{CORRECTION}.rollout_rs=token_k1", f"{CORRECTION}.rollout_rs_threshold=2"],
            [NEEDS % "rollout_rs=token_k1"],
        ),
        ([WITHOUT, "method=none", f"{CORRECTION}.bypass_mode=true"], [NEEDS % "bypass_mode=true"]),
        (
            [f"{CORRECTION}.rollout_is=seq"],
            [f"{CORRECTION}.rollout_is=seq: must be one of token, sequence, or null"],
        ),
    ],
)
def test_what_needs_the_log_probs_of_the_rollout(compose, overrides, problems):
    assert rules.check_config(compose(*overrides)) == problems


def test_the_filter_compares_a_number_that_exists(compose):
    key = "algorithm.filter_groups.metric"
    written = compute_score("gsm8k", "#### 4", "4")
    assert set(rules.FILTERS) == {"reward", *(name for name, value in written.items() if isinstance(value, float))}
    for value in ("seq_reward", "pred", "null"):
        (problem,) = rules.check_config(compose("base=dapo", f"{key}={value}"))
        assert problem.startswith(f"{key}={value}: must be one of reward, score, acc, ")
    for value in ("reward", "metric/length"):
        assert rules.check_config(compose("base=dapo", f"{key}={value}")) == []
    (problem,) = rules.check_config(compose(f"{key}=seq_reward"))
    assert problem.startswith(f"{key}=seq_reward has no effect with algorithm.filter_groups.enable=false")


@pytest.mark.parametrize(
    "overrides, reason",
    [
        (["data.gen_batch_size=4"], None),
        (["data.gen_batch_size=5"], "it does not divide 16 prompts"),
        (["data.gen_batch_size=32"], "it does not divide 16 prompts"),
        (["data.gen_batch_size=4", "base=dapo"], "with algorithm.filter_groups.enable=true verl fetches prompts one "),
        (["data.gen_batch_size=4", "mode=colocate_async"], "with mode=colocate_async verl fetches prompts one by one"),
        (["data.gen_batch_size=1", "base=dapo"], None),
    ],
)
def test_prompts_are_fetched_in_parts_of_a_batch(compose, overrides, reason):
    problems = rules.check_config(compose("data.train_batch_size=16", *overrides))
    assert (problems == []) if reason is None else problems[0].startswith(f"{overrides[0]}: {reason}")
