"""The training process, the driver: loads the resolved configuration, starts Ray and runs verl's trainer.

Started by `recipe.paec.train`, which watches it; where that saves time, before its configuration has been checked
(`--early` in place of the file). A failure is written to `failure.json` as one sentence; the complete traceback goes to
the log.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from recipe.paec.common import fork_server
from recipe.paec.common.early import EARLY, wait_for_work
from recipe.paec.run.log import write_failure

CAUSE_WAIT = 3.0
"""Seconds in which Ray must have noticed that the actor has died for whose death a rollout failed."""
LIBRARIES = (
    *(*fork_server.VLLM_ON_CPU, "vllm.entrypoints.openai.api_server"),
    *("tensordict", "peft", "datasets", "pandas", "numba", "zmq", "paec_loss.methods"),
    "torchdata.stateful_dataloader.stateful_dataloader",
)
"""What takes long to import of what the processes of a run on a CPU import."""


def check_registrations(config) -> None:
    """Raise RuntimeError unless verl has loaded this recipe's plugin, platform and engine (it hides failures)."""
    from verl.plugin.platform import get_platform

    from recipe.paec.plugins.cpu_platform import CPUPlatform

    if config.cluster.platform == "cpu" and not isinstance(get_platform(), CPUPlatform):
        raise RuntimeError(f"verl runs on {type(get_platform()).__name__}, not on this recipe's CPUPlatform")
    if "recipe.paec.plugins.verl_plugin" not in sys.modules:
        raise RuntimeError(
            "verl did not load the plugin recipe.paec.plugins.verl_plugin (entry-point group verl.plugins)"
        )

    from recipe.paec.actor.engine import PAECEngine
    from recipe.paec.plugins import register  # noqa: F401  (registers the engine)

    from verl.workers.engine import EngineRegistry  # isort: skip

    strategy = config.actor_rollout_ref.actor.strategy
    found = EngineRegistry.get_engine_cls("language_model", strategy)
    if found is not PAECEngine:
        raise RuntimeError(f"verl would use {found.__module__}.{found.__name__} for {strategy}, not PAECEngine")


def validate(config) -> None:
    """verl's own validation, and what only verl can know: the surrogate, the actor's typed configuration."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    get_policy_loss_fn(config.actor_rollout_ref.actor.policy_loss.loss_mode)
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )


def root_cause(error: BaseException) -> BaseException:
    """The exception inside Ray's wrappers."""
    cause = getattr(error, "cause", None)
    while isinstance(cause, BaseException) and cause is not error:
        error, cause = cause, getattr(cause, "cause", None)
    return error


def reason(cause: BaseException) -> str:
    """Message of an exception; if an actor has died, which one and where."""
    import ray

    from recipe.paec.driver.actor_watch import RolloutFailed, dead_actors

    if ray.is_initialized():
        if isinstance(cause, ray.exceptions.RayActorError):
            return "; ".join(dead_actors()) or str(cause).strip()
        if isinstance(cause, RolloutFailed):  # it may be known a moment before its cause
            deadline = time.monotonic() + CAUSE_WAIT
            while not (dead := dead_actors()) and time.monotonic() < deadline:
                time.sleep(0.2)
            return "; ".join([str(cause).strip(), *dead])
    if isinstance(cause, InstantiationException):
        return " ".join(str(cause).split())  # its last line is only the key
    return str(cause).strip()


def main(config_file: str, check_only: bool) -> int:
    config = OmegaConf.load(config_file)
    os.environ.update(config.cluster.env)
    directory = Path(config.run.directory)
    try:
        if fork_server.forks(config.cluster) and not check_only:
            config.ray_kwargs.ray_init.runtime_env.py_executable = fork_server.python_of_ray(LIBRARIES)
        import verl  # noqa: F401  (loads the plugin)

        check_registrations(config)
        validate(config)
        if check_only:
            return 0
        from recipe.paec.config.data_files import use_absolute_files
        from recipe.paec.driver import tracking
        from recipe.paec.driver.task_runner import TaskRunnerHere
        from verl.trainer.main_ppo import run_ppo  # isort: skip

        tracking.prepare(config)
        use_absolute_files(config)
        run_ppo(config, task_runner_class=TaskRunnerHere)
    except Exception as error:
        traceback.print_exc()
        cause = root_cause(error)
        write_failure(directory, type(cause).__name__, reason(cause))
        return 1
    return 0


def early() -> str:
    """Import what will be needed, then wait for the file."""
    fork_server.import_without_ray(LIBRARIES)
    return wait_for_work()


if __name__ == "__main__":
    fork_server.leave(main(early() if sys.argv[1] == EARLY else sys.argv[1], check_only="--check" in sys.argv[2:]))
