"""Every bad value is refused in one sentence that names its key; the choices are verl's."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys

import numpy
import pytest
from omegaconf import OmegaConf
from train_check import exit_code

from recipe.paec.config import keys, values

VALUES = [
    ("actor_rollout_ref.actor.policy_loss.loss_mode=gpso", "did you mean gspo?"),
    ("actor_rollout_ref.actor.loss_agg_mode=token_mean", "did you mean token-mean?"),
    ("algorithm.adv_estimator=nope", "must be one of grpo"),
    ("algorithm.adv_estimator=grpoo", "did you mean grpo?"),
    ("algorithm.adv_estimator=gae", "it needs a critic"),
    ("algorithm.gamma=1.5", "[0, 1]"),
    ("actor_rollout_ref.actor.clip_ratio=-0.2", "must be a number > 0"),
    ("actor_rollout_ref.actor.clip_ratio_low=-0.2", "[0, 1]"),
    ("actor_rollout_ref.actor.clip_ratio_high=-1", ">= 0"),
    ("actor_rollout_ref.actor.clip_ratio_c=1", "> 1"),
    ("actor_rollout_ref.actor.ppo_epochs=0", ">= 1"),
    ("actor_rollout_ref.actor.optim.lr=-1e-6", "> 0"),
    ("actor_rollout_ref.actor.optim.lr=inf", "> 0"),
    ("actor_rollout_ref.actor.optim.lr=fast", "> 0"),
    ("actor_rollout_ref.actor.optim.weight_decay=nan", ">= 0"),
    ("actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=2", "[0, 1]"),
    ("actor_rollout_ref.actor.optim.lr_scheduler_type=cosin", "did you mean cosine?"),
    ("actor_rollout_ref.actor.fsdp_config.fused_head=1", "true or false"),
    ("actor_rollout_ref.actor.fsdp_config.head_chunk_size=0", "an integer >= 1, or null"),
    ("actor_rollout_ref.actor.strategy=megatron", "fsdp2"),
    ("actor_rollout_ref.rollout.gpu_memory_utilization=2", "(0, 1]"),
    ("actor_rollout_ref.rollout.gpu_memory_utilization=0", "(0, 1]"),
    ("actor_rollout_ref.rollout.n=2.5", "must be an integer"),
    ("actor_rollout_ref.rollout.temperature=0", "> 0"),
    ("actor_rollout_ref.rollout.top_p=1.5", "(0, 1]"),
    ("actor_rollout_ref.rollout.top_k=0", "-1"),
    ("actor_rollout_ref.rollout.val_kwargs.temperature=-1", ">= 0"),
    ("actor_rollout_ref.rollout.dtype=int8", "bfloat16"),
    ("actor_rollout_ref.rollout.max_num_seqs=null", "must be an integer"),
    ("data.val_files=null", "a non-empty list"),
    ("data.val_files=5", "a non-empty list"),
    ("data.train_batch_size=-16", ">= 1"),
    ("data.max_response_length=0", ">= 1"),
    ("data.max_prompt_length=12.0", "must be an integer"),
    ("data.shuffle=yep", "true or false"),
    ("data.truncation=cut", "error"),
    ("seed=-1", ">= 0"),
    (f"seed={2**63}", "<= "),
    (f"seed={2**32}", "<= "),
    ("seed=one", "must be an integer"),
    ("reward.scorers=my_pkg:score", "must be a table: reward.scorers.DATA_SOURCE=package.module:function"),
    ("lora.target_modules=[]", "all-linear"),
    ("lora.target_modules=q_proj", "all-linear"),
    ("lora.alpha=0", ">= 1"),
    ("lora.rank=-1", ">= 0"),
    ("trainer.val_before_train=maybe", "true or false"),
    ("trainer.save_freq=0", "-1: never"),
    ("trainer.test_freq=0", "-1: never"),
    ("trainer.test_freq=-2", "-1: never"),
    ("trainer.total_training_steps=0", ">= 1"),
    ("trainer.total_training_steps=1e3", "must be an integer"),
    ("trainer.logger=[consol]", "console"),
    ("run.time_limit=0", "> 0"),
    ("run.stall_timeout=nan", "> 0"),
    ("run.fresh=perhaps", "run.fresh"),
    ("cluster.platform=tpu", "cuda"),
    ("cluster.nodes=0", ">= 1"),
    ("model.context_length=-1", ">= 0"),
    ("actor_rollout_ref.actor.clip_ratio_low=null", "[0, 1]"),
    ("actor_rollout_ref.actor.clip_ratio_high=abc", ">= 0"),
    ("actor_rollout_ref.actor.clip_ratio_c=null", "> 1"),
    ("data.gen_batch_size=0", ">= 1, or null"),
]
"""Refused by keys.RULES, or by the types of the recipe's own sections."""


def batches() -> list[list[str]]:
    """The values that RULES refuse, so many at once as there are keys: composing takes a second."""
    found: list[list[str]] = []
    for override, _ in VALUES:
        place = next((b for b in found if keys.key_of(override) not in map(keys.key_of, b)), None)
        found.append([override]) if place is None else place.append(override)
    return found


@pytest.fixture(scope="module")
def complaints() -> dict[str, list[str]]:
    """Override of VALUES -> the sentences on its key with which the command line of its batch is refused."""
    sentences: dict[str, list[str]] = {}
    for batch in batches():
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
            code = exit_code(patch, *batch)
        found = said.getvalue().strip().splitlines()
        assert code == 2 and len(found) == len(batch), said.getvalue()
        for override in batch:
            begin = f"error: {keys.key_of(override)}"
            sentences[override] = [line for line in found if line.startswith((f"{begin}=", f"{begin}:"))]
    return sentences


@pytest.mark.parametrize("override, words", VALUES)
def test_bad_values(override, words, complaints):
    (sentence,) = complaints[override]
    assert words in sentence and "Traceback" not in sentence


def test_every_seed_that_is_accepted_can_be_used():
    last = 2**32 - values.REPLICAS
    assert values.SEED.accepts(last) and not values.SEED.accepts(last + 1)
    numpy.random.RandomState(last + values.REPLICAS - 1)
    with pytest.raises(ValueError):
        numpy.random.RandomState(last + values.REPLICAS)


def test_every_rule_is_of_a_key_that_exists(compose):
    config = compose()
    for key in values.RULES:
        assert OmegaConf.select(config, key, default=values.MISSING) is not values.MISSING, key
    assert set(config) == set(keys.TOP_LEVEL)


def test_the_choices_are_verls():
    """In another process: importing verl registers things that other tests want to do themselves."""
    script = (
        "from verl.trainer.ppo import core_algos as c; from verl.utils.tracking import Tracking; import json;"
        "print(json.dumps([sorted(map(str, c.ADV_ESTIMATOR_REGISTRY)), sorted(c.POLICY_LOSS_REGISTRY),"
        "sorted(Tracking.supported_backend)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    estimators, losses, loggers = json.loads(done.stdout.strip().splitlines()[-1])
    assert {name.removeprefix("AdvantageEstimator.").lower() for name in estimators} == {
        *values.ESTIMATORS,
        *values.UNSUPPORTED,
    }
    assert set(losses) - {"method", "bypass_mode"} == set(values.LOSS_MODES)
    assert loggers == sorted(values.LOGGERS)
