"""`python -m recipe.paec.plan experiment=... [key=value ...] [gpu_memory=80]`: does a run fit, how long does it take?

Three phases take turns on the same GPUs: the actor's update (vLLM asleep), the weight sync (vLLM's weights are back,
its KV cache is not) and the rollout. Every line of the table is a formula; docs/plan.md says where each
comes from, what was checked against a measurement and what was not. Bytes throughout; printed in GiB.
"""

from __future__ import annotations

import math
import sys

from omegaconf import DictConfig

from recipe.paec.common.console import GIB, asked_for_help, complain, say
from recipe.paec.common.errors import UserError
from recipe.paec.config import rules
from recipe.paec.config.command_line import hydra_command
from recipe.paec.config.resolve import resolved
from recipe.paec.plan.formulas import MemoryEstimate, estimate
from recipe.paec.plan.hours import Throughput, duration_line, read_throughput
from recipe.paec.plan.remedies import USABLE, errors_of, remedy
from recipe.paec.plan.settings import read_setup
from recipe.paec.plan.shapes import find_shape

GPU_MEMORY = 80.0
"""GiB of a GPU if `gpu_memory=` is not given."""

USAGE = """
usage: paec plan experiment=NAME [key=value ...] [gpu_memory=GIB] [tokens_per_second=N | measured=RUN]
Computes the memory that each GPU needs, phase by phase, and says whether it fits. Needs no GPU and no weights.
  experiment=NAME   a file of configs/experiment; all arguments are those of paec train
  gpu_memory=GIB    memory of one GPU (default 80)
Says hours and GPU-hours if one of these is given:
  tokens_per_second=N    prompts and responses, all GPUs together; tokens_per_response=N if the mean length is known
  measured=RUN           directory of a run with the same settings and at least one step
If it does not fit, names overrides with which it would, and returns exit code 2 (docs/plan.md).
example: paec plan experiment=qwen7b cluster=gpu_1x8 gpu_memory=40
"""


def table(found: MemoryEstimate, gpu_memory: float) -> list[str]:
    """The estimate as lines of text, GiB."""
    items = list(dict.fromkeys(item for phase in found.phases.values() for item in phase))
    items.sort(key=lambda item: (item.startswith("vLLM"), item.startswith("CUDA")))  # the actor's items first
    wide = max(map(len, items)) + 2
    rows = [("GiB per GPU", *found.phases)]
    for item in items:
        cells = (phase.get(item, 0.0) for phase in found.phases.values())
        rows.append((item, *(f"{cell / GIB:.2f}" if cell else "-" for cell in cells)))
    rows.append(("total", *(f"{found.total(phase) / GIB:.2f}" for phase in found.phases)))
    rows.append((f"usable: {USABLE:.0%} of {gpu_memory / GIB:g}", *[f"{USABLE * gpu_memory / GIB:.2f}"] * 3))
    return [f"{row[0]:<{wide}}" + "".join(f"{cell:>13}" for cell in row[1:]) for row in rows]


def plan(config: DictConfig, gpu_memory: float, known: Throughput | None = None) -> None:
    """Print the plan of a resolved configuration; UserError if it does not fit. `gpu_memory` in bytes.

    `known`: what the duration is computed from.
    """
    errors = rules.check_config(config)
    if errors:
        raise UserError(*errors)
    setup = read_setup(config)
    shape, source = find_shape(config.model.path)
    found = estimate(shape, setup, gpu_memory)
    say(f"{config.model.path}: {shape.parameters / 1e9:.2f} B parameters (shape: {source})")
    say(
        f"{setup.nodes} x {setup.gpus_per_node} GPUs, states sharded over {setup.shards}; micro-batches of "
        f"{setup.tokens} tokens per GPU, Ulysses {setup.sequence_parallel}; vLLM tensor parallel "
        f"{setup.tensor_parallel}"
    )
    say("\n".join(table(found, gpu_memory)))
    say(
        f"KV cache: {max(found.kv_tokens, 0)} tokens per replica, {max(found.kv_tokens, 0) // setup.length} sequences "
        f"of prompt + response = {setup.length} at once (max_num_seqs {setup.sequences})"
    )
    if found.host:
        say(f"offloaded states: {found.host / GIB:.0f} GiB of host memory per node")
    say(duration_line(config, known or Throughput()))
    errors = errors_of(shape, setup, gpu_memory)
    if errors:
        errors = ["; ".join([*errors, remedy(shape, setup, gpu_memory)])]
    if errors:
        raise UserError(*errors)
    say("it fits")


def main() -> int:
    """Command line entry; returns the exit code: 2 if it does not fit."""
    if asked_for_help(sys.argv[1:], USAGE):
        return 0
    given = [a for a in sys.argv[1:] if a.startswith("gpu_memory=")]
    try:
        gpu_memory = float(given[-1].partition("=")[2]) if given else GPU_MEMORY
    except ValueError:
        gpu_memory = math.nan
    if not 0 < gpu_memory < math.inf:
        return complain([f"{given[-1]}: must be a number of GiB > 0"])
    try:
        known, arguments = read_throughput([a for a in sys.argv[1:] if a not in given])
    except UserError as error:
        return complain(error.errors)
    return hydra_command(
        "train", lambda config: plan(resolved(config), gpu_memory * GIB, known), arguments, "nothing was changed"
    )
