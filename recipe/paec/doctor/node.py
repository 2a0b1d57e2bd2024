"""All checks of one node: its resources against the needs of a run.

Every check is a function of the resolved configuration and looks at the node it runs on: the one where the command is
started or, for a Ray cluster, each of its nodes (recipe.paec.doctor.collective).
"""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.paec.doctor.environment import compiler
from recipe.paec.doctor.node_folders import scratch, shared_memory, write_access
from recipe.paec.doctor.node_limits import interfaces, limits
from recipe.paec.doctor.node_memory import memory
from recipe.paec.doctor.report import Check


def node_checks(config: DictConfig) -> list[Check]:
    """Everything that a training needs on a node, except GPUs."""
    checks = [memory(config), shared_memory(config), write_access(config), *ray_checks(config)]
    return [*checks, compiler(config)] if config.cluster.platform == "cuda" else checks


def ray_checks(config: DictConfig) -> list[Check]:
    """What Ray needs on a node; only the section `cluster` of the configuration is read."""
    return [scratch(config), limits(config), interfaces(config)]
