"""Settings that make it another run, and those that may change between two starts of one."""

from __future__ import annotations

import pytest

from recipe.paec.config.same_run import differences, settings

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@pytest.mark.parametrize(
    "key, there, here",
    [
        (f"{ACTOR}.optim.lr", 5e-5, 1e-3),
        (f"{ROLLOUT}.n", 8, 4),
        (f"{ACTOR}.ppo_mini_batch_size", 8, 16),
        ("algorithm.adv_estimator", "grpo", "rloo"),
        ("data.max_response_length", 32, 16),
        (f"{ACTOR}.use_kl_loss", False, True),
        ("data.train_max_samples", -1, 64),
        ("trainer.v1.sampler.max_off_policy_threshold", 8, 2),
    ],
)
def test_another_run(tiny_config, key, there, here):
    assert differences(tiny_config(), tiny_config(f"{key}={here}")) == {key: (there, here)}


def test_the_same_run(tiny_config):
    how_long = ["trainer.total_training_steps=500", "trainer.save_freq=3", "trainer.test_freq=7"]
    how_watched = ["run.stall_timeout=3", "trainer.logger=[console,tensorboard]", f"{ROLLOUT}.trace.experiment_name=x"]
    where = ["cluster.nodes=2", f"{ROLLOUT}.n_gpus_per_node=4", f"{ROLLOUT}.nnodes=1"]
    memory = [f"{ACTOR}.ppo_max_token_len_per_gpu=1024", f"{ACTOR}.fsdp_config.param_offload=true"]
    speed = [f"{ROLLOUT}.gpu_memory_utilization=0.3", f"{ROLLOUT}.agent.num_workers=2", "reward.num_workers=3"]
    queue = ["transfer_queue.backend.SimpleStorage.num_data_storage_units=4"]
    assert differences(tiny_config(), tiny_config(*how_long, *how_watched, *where, *memory, *speed, *queue)) == {}


def test_a_key_that_only_one_of_them_has(tiny_config):
    """Where the command lines are the same it is of another version, and nobody can set it as it was."""
    older = tiny_config()
    del older.algorithm.gamma
    assert differences(older, tiny_config("run.overrides=[run.name=mine]")) == {}
    assert differences(older, tiny_config("run.overrides=[seed=1]")) == {"algorithm.gamma": (None, 1.0)}


def test_names_of_classes_of_the_recipe_may_change(tiny_config):
    found = settings(tiny_config())
    assert not {"actor_rollout_ref.actor.fsdp_config._target_", "reward.custom_reward_function.path"} & found.keys()
