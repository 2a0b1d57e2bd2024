"""The Ray task that drives training: verl's own, in a process where this recipe's trainer is registered."""

from __future__ import annotations

import ray
from verl.trainer.main_ppo import TaskRunnerV1

VerlTaskRunner = TaskRunnerV1.__ray_metadata__.modified_class


@ray.remote
class PAECTaskRunner(VerlTaskRunner):
    """verl's V1 task runner. Ray ships the class by value, so the registration has to be part of what it runs."""

    def run(self, config):
        from recipe.paec.driver import trainer  # noqa: F401  (registers the trainer)

        return VerlTaskRunner.run(self, config)
