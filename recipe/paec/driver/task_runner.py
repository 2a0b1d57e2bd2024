"""verl's task runner, in the process that starts it. verl has a Ray actor for it, which imports everything again."""

from __future__ import annotations

import os
from types import SimpleNamespace

import ray
from omegaconf import DictConfig
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
from verl.trainer.main_ppo import TaskRunnerV1

from recipe.paec.common.errors import UserError
from recipe.paec.common.ray_access import queue_of_another_run

VerlTaskRunner = TaskRunnerV1.__ray_metadata__.modified_class


class TaskRunnerHere:
    """What `run_ppo` takes for the class of an actor with a method `run`, which runs when it is called."""

    @classmethod
    def remote(cls) -> SimpleNamespace:
        """Like an actor's handle: `.run.remote(config)` trains, and returns a reference to its result."""
        return SimpleNamespace(run=SimpleNamespace(remote=_run))


def _run(config: DictConfig) -> ray.ObjectRef:
    from recipe.paec.driver import trainer  # noqa: F401  (registers the trainer)

    # Before verl joins the queue: prompts are named by step and place, so two runs would take each other's responses.
    if problem := queue_of_another_run(ray.util.list_named_actors(all_namespaces=True)):
        raise UserError(problem)
    os.environ.update(get_ppo_ray_runtime_env(config)["env_vars"])  # as every worker has them
    runner = VerlTaskRunner()
    try:
        return ray.put(runner.run(config))
    finally:
        if runner.trainer is not None:
            runner.trainer.actor_watch.stop()
