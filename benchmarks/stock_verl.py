"""verl's own trainer on a resolved configuration: `python -m benchmarks.stock_verl CONFIG`, for `benchmarks.step`.

verl's workers import this module too (`model.external_lib`). It registers the sender of the weight sync, which verl
lacks on a CPU, and lets verl 0.9.1 start where TRL 1.16 is installed. Neither changes the time of a step.
"""

from __future__ import annotations

import sys

from omegaconf import OmegaConf

import recipe.paec.rollout.server_adapter  # noqa: F401  registers the sender
from recipe.paec.plugins.patches import without_value_head

without_value_head()


def main() -> None:
    """Train until the last step."""
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    run_ppo(OmegaConf.load(sys.argv[1]), task_runner_class=TaskRunnerV1)


if __name__ == "__main__":
    main()
