"""All checks of one node."""

from __future__ import annotations

from omegaconf import OmegaConf

from recipe.paec.doctor.node import node_checks, ray_checks


def test_every_check_of_a_node_in_order(tiny_config):
    names = [check.name for check in node_checks(tiny_config())]
    assert names == ["memory", "shared memory", "write access", "Ray's files", "limits", "network"]


def test_a_node_of_gpus_needs_a_compiler_too(compose):
    assert [check.name for check in node_checks(compose("experiment=tiny_gpu"))][-2:] == ["network", "compiler"]


def test_what_ray_needs_is_read_from_the_cluster_alone(tiny_config):
    config = tiny_config()
    alone = OmegaConf.create({"cluster": OmegaConf.to_container(config.cluster, resolve=True)})
    found = [(check.name, check.errors) for check in ray_checks(alone)]
    assert found == [(check.name, check.errors) for check in ray_checks(config)]
    assert [name for name, _ in found] == ["Ray's files", "limits", "network"]
