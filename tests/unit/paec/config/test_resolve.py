"""The resolved configuration: a run's name, and a Ray cluster that is already there."""

from __future__ import annotations

import pytest

from recipe.paec.config import resolve


def test_a_running_cluster_is_not_told_its_size(compose):
    """ray.init refuses num_cpus and num_gpus together with an address."""
    own, joined = compose(), compose("cluster.ray_address=10.0.0.1:6379")
    assert (own.ray_kwargs.ray_init.num_cpus, own.ray_kwargs.ray_init.num_gpus) == (16, 16)
    ray_init = joined.ray_kwargs.ray_init
    assert (ray_init.address, ray_init.num_cpus, ray_init.num_gpus) == ("10.0.0.1:6379", None, None)


@pytest.mark.parametrize(
    "overrides, suffix",
    [
        ([], ""),
        (["trainer.total_training_steps=5", "run.fresh=true", "experiment=tiny_cpu", "method=none"], ""),
        (["method.rho=0.7"], "-rho=0.7"),
        (["method.rho=0.7", "actor_rollout_ref.actor.optim.lr=1e-4"], "-actor.optim.lr=1e-4,rho=0.7"),
        (["trainer.v1.sampler.max_off_policy_threshold=2"], "-trainer.v1.sampler.max_off_policy_threshold=2"),
        (["data.train_files=[/a/b.parquet]"], "-data.train_files=__a_b.parquet_"),
        (["seed=1", "method.rho=0.7", "seed=2"], "-rho=0.7,seed=2"),
        (["seed=2", "seed=2"], "-seed=2"),
        (["+a.b=1", "a.b=2"], "-a.b=2"),
        (["reward.scorers={a: x}", "reward.scorers={b: y}"], "-reward.scorers=_a__x_,reward.scorers=_b__y_"),
    ],
)
def test_run_suffix(overrides, suffix):
    assert resolve.run_suffix(overrides) == suffix


def test_a_name_of_ones_own_stays_as_it_is(compose):
    assert compose("++run.name=mine", "seed=2").run.name == "mine"


def test_long_suffixes_differ():
    one, two = (resolve.run_suffix([f"data.train_files=[/{'x' * 90}/{name}]"]) for name in "ab")
    assert len(one) == len(two) == 13 and one != two


def test_address_as_an_override(compose):
    """As launch/slurm/paec.sbatch writes it: text for Hydra, brackets or not, and no part of the run's name."""
    for address in ("10.0.0.1:6379", "[fd00::2]:6379"):
        config = compose("experiment=tiny_cpu", f"cluster.ray_address='{address}'", "cluster.nodes=2")
        assert config.ray_kwargs.ray_init.address == address
        assert config.run.name == "tiny_cpu-paec"
        # Each node's Ray knows its interface; loopback, which one host uses, would reach nobody.
        assert "GLOO_SOCKET_IFNAME" not in config.ray_kwargs.ray_init.runtime_env.env_vars
    assert compose("experiment=tiny_cpu").ray_kwargs.ray_init.runtime_env.env_vars.GLOO_SOCKET_IFNAME == "lo"
    chosen = compose("cluster.ray_address=a:1", "cluster.env.GLOO_SOCKET_IFNAME=ib0")
    assert chosen.ray_kwargs.ray_init.runtime_env.env_vars.GLOO_SOCKET_IFNAME == "ib0"
