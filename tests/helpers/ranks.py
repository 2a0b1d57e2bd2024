"""Processes under torchrun, on gloo unless told otherwise: how a test starts a worker, what a worker of cases does."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

NO_ALLTOALL = f"gloo of torch {torch.__version__} has no alltoall, which Ulysses needs: run with the CPU stack"


@functools.cache
def gloo_has_alltoall() -> bool:
    """Whether gloo can do verl's Ulysses exchange; torch 2.11's cannot."""
    values = torch.arange(2.0)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            dist.all_to_all([torch.empty_like(values)], [values])
        except RuntimeError as error:
            if "does not support alltoall" not in str(error):
                raise
            return False
        finally:
            dist.destroy_process_group()
    return True


def torchrun(worker: str, ranks: int, *arguments: Path, timeout: int, platform: str = "cpu") -> None:
    """Run `tests/<worker>` on so many ranks; it must end well within `timeout` seconds. `platform` is verl's name."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"]
    command += ["--local-addr=127.0.0.1"]  # the host's name need not lead anywhere
    command += [str(Path(__file__).with_name(worker)), *map(str, arguments)]
    env = {**os.environ, "VERL_PLATFORM": platform, "OMP_NUM_THREADS": "1"}
    env |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-12000:]


def torchrun_cases(worker: str, work: Path, ranks: int, cases: list[dict], timeout: int, platform: str = "cpu") -> None:
    """`torchrun` of a worker that ends in `run_cases`; its arguments are `work` and a file with the cases."""
    file = work / f"cases-{ranks}.json"
    file.write_text(json.dumps(cases))
    torchrun(worker, ranks, work, file, timeout=timeout, platform=platform)


def run_cases(run: Callable[[Path, dict], None]) -> None:
    """The worker's side: `run(work, case)` for every case, with this recipe loaded as verl loads it."""
    torch.set_num_threads(1)
    import verl  # noqa: F401  (loads the plugin)

    import recipe.paec.plugins.register  # noqa: F401

    if os.environ["VERL_PLATFORM"] == "cpu":
        dist.init_process_group("gloo")
    else:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl")
    work = Path(sys.argv[1])
    for case in json.loads(Path(sys.argv[2]).read_text()):
        run(work, case)
    dist.destroy_process_group()
