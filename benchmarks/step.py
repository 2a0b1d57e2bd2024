r"""Where the time of a training step goes: `python -m benchmarks.step [--steps 30] [--variants "ours, paec" ...]`

Trains the quick start's experiment several times, one run after the other, and prints for each

* from the command to the first rollout, and the first validation (100 problems, 4 responses each);
* a step and its stages: medians over all steps but the first five, in seconds. The stages are the trainer's own timers;
  "other" is what lies between two steps and outside of them;
* processor seconds a step of every process, over the same steps: what the stages consist of;
* the peak of the memory of all processes.

Variants: `ours, paec` and `ours, none` are the recipe's; `verl, none` is verl's own trainer, agent loops, engine and
loss on the same configuration (with our CPU platform and the sender of the weight sync, which verl does not have on a
CPU). Ratios are to it. Nothing else should run meanwhile. `--out` gets JSON, written anew after each variant.

The prepared model and data are those of PAEC_TINY_DIR (default data/tiny; the quick start makes them).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig, OmegaConf, open_dict

from data_prep.files import atomic_write
from recipe.paec.common.process_tree import ProcessTree
from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.paec.config.resolve import composed, resolved

VARIANTS = ("ours, paec", "ours, none", "verl, none")
SKIPPED = 5
"""First steps that are not counted: caches fill, and kernels are compiled."""
STAGES = {
    "rollout": "timing_s/gen",
    "log-probs": "timing_s/old_log_prob",
    "advantages": "timing_s/adv",
    "update": "timing_s/update_actor",
    "weight sync": "timing_s/update_weights",
}
"""Name here -> the trainer's timer."""


def overrides_of(variant: str, steps: int, root: Path) -> list[str]:
    """The command line of a run of `variant` below `root`."""
    return [
        "experiment=tiny_cpu",
        f"method={variant.split(', ')[1]}",
        f"run.root={root}",
        "run.name=run",
        f"trainer.total_training_steps={steps}",
        "trainer.save_freq=-1",
        f"trainer.test_freq={steps}",
        "run.export=false",
    ]


def as_verl_has_it(config: DictConfig, metrics: Path) -> None:
    """Replace what this recipe plugs into verl by verl's own, in place; it writes its metrics to `metrics`."""
    config.trainer.v1.trainer_mode = "sync"
    config.trainer.logger = ["file"]
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    rollout.agent.agent_loop_manager_class = None
    rollout.engine_kwargs = {}
    config.actor_rollout_ref.model.external_lib = "benchmarks.stock_verl"
    for name in ("methods", "clip", "seed", "fused_head", "head_chunk_size"):
        del actor.fsdp_config[name]
    actor.fsdp_config._target_ = "verl.workers.config.FSDPEngineConfig"
    config.cluster.env.update(VERL_ENGINE_DEVICE="cuda", VERL_FILE_LOGGER_PATH=str(metrics))
    config.ray_kwargs.ray_init.runtime_env.env_vars = config.cluster.env


def lines_of(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics. verl's own file logger writes {"step": n, "data": {metric: value}}."""
    return [{"step": line["step"], **line.get("data", line)} for line in read_metrics(metrics)]


def members(tree: ProcessTree) -> list[psutil.Process]:
    """The processes of a run; none once it has ended."""
    try:
        return psutil.Process(tree.process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


class Watcher:
    """Follows a run: when its steps end, and the processor seconds of its processes at each of them."""

    def __init__(self, tree: ProcessTree, metrics: Path):
        self.tree, self.metrics = tree, metrics
        self.began = time.monotonic()
        self.lines: list[tuple[float, dict[str, Any]]] = []
        self.used: dict[int, dict[tuple[int, str], float]] = {}

    def look(self) -> None:
        """Note the steps that have ended since the last look."""
        found = lines_of(self.metrics)
        for line in found[len(self.lines) :]:
            self.lines.append((time.monotonic() - self.began, line))
            if line["step"] >= SKIPPED:
                self.used[line["step"]] = self._processor_seconds()

    def _processor_seconds(self) -> dict[tuple[int, str], float]:
        found = {}
        for member in members(self.tree):
            try:
                times = member.cpu_times()
                found[member.pid, _title(member.cmdline())] = times.user + times.system
            except psutil.Error:
                continue
        return found


def _title(command: list[str]) -> str:
    """A short name of a process: the actor of Ray, else its program."""
    text = " ".join(command)
    for actor in ("SeededAgentLoopWorker", "AgentLoopWorkerTQ", "RewardLoopWorker", "vLLMHttpServer", "GroupServer"):
        if actor in text:
            return "agent loops" if "Agent" in actor else "rewards" if "Reward" in actor else "vLLM server"
    named = {
        "WorkerDict": "actor",
        "recipe.paec.driver": "driver",
        "benchmarks.stock_verl": "launcher",
        "TaskRunner": "driver",
        "VLLM::": "vLLM engine",
        "TransferQueueController": "queue",
        "SimpleStorageUnit": "queue",
        "GlobalRequestLoadBalancer": "load balancer",
        "recipe.grading": "graders",
        "multiprocessing": "graders",
        "ray/": "Ray",
        "ray::": "Ray",
    }
    return next((name for part, name in named.items() if part in text), "launcher")


def started(variant: str, steps: int, root: Path, given: list[str]) -> tuple[ProcessTree, Path, Path]:
    """A run of `variant` in `root`: its processes, its metrics, and the log of its output."""
    overrides, directory = [*overrides_of(variant, steps, root), *given], root / "run"
    command, env, metrics = ["recipe.paec.train", *overrides], dict(os.environ), directory / METRICS_FILE
    if variant.startswith("verl"):
        config, metrics = resolved(composed(*overrides)), directory / "verl.jsonl"
        with open_dict(config):
            as_verl_has_it(config, metrics)
        directory.mkdir()
        OmegaConf.save(config, directory / "config.yaml")
        command, env = ["benchmarks.stock_verl", str(directory / "config.yaml")], {**env, **config.cluster.env}
    log = root / "output.log"
    return ProcessTree([sys.executable, "-m", *command], log, env), metrics, log


def failed(variant: str, log: Path) -> SystemExit:
    """What to raise when a run of `variant` has ended too early."""
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    return SystemExit(f"{variant} failed:\n" + "\n".join(tail))


def measure(variant: str, steps: int, given: list[str]) -> dict[str, Any]:
    """Train `variant`; its figures."""
    with tempfile.TemporaryDirectory(prefix="paec-step-") as name:
        tree, metrics, log = started(variant, steps, Path(name), given)
        watcher = Watcher(tree, metrics)
        try:
            code = tree.wait(watcher.look, interval=0.05)
        finally:
            tree.end()
        if code != 0:
            raise failed(variant, log)
        return figures(watcher, steps)


def figures(watcher: Watcher, steps: int) -> dict[str, Any]:
    """Medians over the counted steps of a run, and the rest; seconds and GiB."""
    lines = [(at, line) for at, line in watcher.lines if "timing_s/step" in line]
    counted = [(before, at, line) for (before, _), (at, line) in zip(lines, lines[1:], strict=False)]
    counted = [entry for entry in counted if SKIPPED < entry[2]["step"] < steps]
    whole = statistics.median(at - before for before, at, _ in counted)
    stages = {name: statistics.median(line[key] for *_, line in counted) for name, key in STAGES.items()}
    first_line = lines[0]
    first, last = min(watcher.used), steps - 1
    used: dict[str, float] = defaultdict(float)
    for (pid, title), seconds in watcher.used[last].items():
        used[title] += (seconds - watcher.used[first].get((pid, title), 0.0)) / (last - first)
    validation = lines[-1][1].get("timing_s/testing")
    return {
        "to the first rollout": first_line[0] - first_line[1]["timing_s/step"],
        "validation": validation,
        "step": whole,
        "stages": {**stages, "other": whole - sum(stages.values())},
        "processor seconds a step": dict(sorted(used.items(), key=lambda item: -item[1])),
        "peak memory, GiB": watcher.tree.peak_memory / 2**30,
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """All figures of all variants, one column each."""
    rows = [("seconds", *found)]
    for name in ("to the first rollout", "validation", "step"):
        rows.append((name, *(f"{f[name]:.2f}" for f in found.values())))
    for part in ("stages", "processor seconds a step"):
        rows.append((f"-- {part}", *("" for _ in found)))
        names = list(dict.fromkeys(name for f in found.values() for name in f[part]))
        rows += [(name, *(f"{f[part].get(name, 0.0):.2f}" for f in found.values())) for name in names]
    rows.append(("peak memory, GiB", *(f"{f['peak memory, GiB']:.2f}" for f in found.values())))
    if "verl, none" in found:
        stock = found["verl, none"]["step"]
        rows.append(("step, verl = 1", *(f"{f['step'] / stock:.2f}" for f in found.values())))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> None:
    """Measure the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=36, help="steps of each run; the first five are not counted")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="VARIANT")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for all variants")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.steps < SKIPPED + 3:
        parser.error(f"--steps={options.steps}: must be at least {SKIPPED + 3}")
    found: dict[str, dict[str, Any]] = {}
    for variant in options.variants:
        print(f"{variant} ...", flush=True)
        found[variant] = measure(variant, options.steps, options.set)
        if options.out:
            with atomic_write(options.out) as partial:
                partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
