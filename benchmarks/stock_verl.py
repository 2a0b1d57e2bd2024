"""verl's own trainer on a resolved configuration: `python -m benchmarks.stock_verl CONFIG`, for `benchmarks.step`."""

from __future__ import annotations

import sys

from omegaconf import OmegaConf
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

run_ppo(OmegaConf.load(sys.argv[1]), task_runner_class=TaskRunnerV1)
