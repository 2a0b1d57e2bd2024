"""Settings that a method does not go with: one sentence that names the key and the remedy."""

from __future__ import annotations

import pytest

from recipe.paec.config import rules

REFUSED = [
    (["method=clip_higher", "++actor_rollout_ref.actor.clip_ratio_high=0.4"], "clip_ratio_high=0.4: clip_higher sets"),
    *(
        (
            [f"method={name}", "actor_rollout_ref.actor.clip_ratio_high=0.4"],
            f"actor_rollout_ref.actor.clip_ratio_high=0.4: the policy loss of {name} does not read it: leave it out",
        )
        for name in ("kl_cov", "sapo", "bapo", "archer", "dppo", "gmpo", "aspo", "adaptive_clip")
    ),
    (
        ["method=bapo", "++actor_rollout_ref.actor.clip_ratio_low=0.1", "actor_rollout_ref.actor.clip_ratio_c=4"],
        "++actor_rollout_ref.actor.clip_ratio_low=0.1: the policy loss of bapo does not read it",
    ),
    *(
        (
            [f"method={name}", "base=dapo"],
            f"algorithm.filter_groups.enable=true leaves out prompts by the graded rewards, and {name} makes its own: "
            "set it to false",
        )
        for name in ("ttrl", "empo", "entropy_min", "spurious")
    ),
    (
        ["method=forking_tokens", "base=dr_grpo"],
        "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm is not a mean over tokens, and forking_tokens "
        "selects those of the mean: set it to token-mean",
    ),
]


@pytest.mark.parametrize(("overrides", "words"), REFUSED, ids=[" ".join(overrides) for overrides, _ in REFUSED])
def test_refused_in_one_sentence(compose, overrides, words):
    (problem,) = rules.check_config(compose(*overrides))
    assert words in problem and "\n" not in problem


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=pear", "base=dapo"],
        ["method=unlikeliness", "base=dapo"],
        ["method=ares", "base=dapo"],
        ["method=bapo", "base=dapo", "actor_rollout_ref.actor.clip_ratio_c=4"],
        ["method=hapo", "actor_rollout_ref.actor.clip_ratio_high=0.4"],
        ["method=pass_at_k", "method.k=7"],
        ["method=ttrl", "method.min_votes=8", "algorithm.use_kl_in_reward=true"],
        ["method=forking_tokens", "base=dapo"],
        ["method=paec", "algorithm.adv_estimator=reinforce_plus_plus", "actor_rollout_ref.rollout.n=1"],
    ],
    ids=" ".join,
)
def test_methods_beside_settings_that_they_can_do_with(compose, overrides):
    assert rules.check_config(compose(*overrides)) == []
