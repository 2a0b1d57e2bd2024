"""Processes under torchrun (gloo, no GPU): how a test starts a worker, and what a worker of cases does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist


def torchrun(worker: str, ranks: int, *arguments: Path, timeout: int) -> None:
    """Run `tests/<worker>` on so many ranks; it must end well within `timeout` seconds."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"]
    command += [str(Path(__file__).with_name(worker)), *map(str, arguments)]
    env = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-12000:]


def torchrun_cases(worker: str, work: Path, ranks: int, cases: list[dict], timeout: int) -> None:
    """`torchrun` of a worker that ends in `run_cases`; its arguments are `work` and a file with the cases."""
    file = work / f"cases-{ranks}.json"
    file.write_text(json.dumps(cases))
    torchrun(worker, ranks, work, file, timeout=timeout)


def run_cases(run: Callable[[Path, dict], None]) -> None:
    """The worker's side: `run(work, case)` for every case, with this recipe loaded as verl loads it."""
    torch.set_num_threads(1)
    import verl  # noqa: F401  (loads the plugin)

    import recipe.paec.worker  # noqa: F401

    dist.init_process_group("gloo")
    work = Path(sys.argv[1])
    for case in json.loads(Path(sys.argv[2]).read_text()):
        run(work, case)
    dist.destroy_process_group()
