"""The doctor's checks of a node's memory, of the host and of its GPUs."""

from __future__ import annotations

import psutil
from omegaconf import DictConfig

from recipe.paec.common.console import gib
from recipe.paec.common.errors import UserError
from recipe.paec.common.gpus import visible_gpus
from recipe.paec.doctor.cgroup import cgroup_room
from recipe.paec.doctor.report import Check
from recipe.paec.plan import formulas, remedies, settings, shapes

MEMORY_SURE = 0.8
"""Share of the estimated memory below which a run is refused."""


def free_memory() -> float:
    """Bytes that a new process may use, by the machine and by the limits of its control group (container, Slurm)."""
    limits = ("memory.max", "memory.current", "memory.limit_in_bytes", "memory.usage_in_bytes")
    return min(psutil.virtual_memory().available, cgroup_room("memory", *limits))


def memory(config: DictConfig) -> Check:
    """Free memory against plan.host_memory; slightly less is only a note, because pages of libraries can be freed."""
    free, need = free_memory(), formulas.host_memory(config)
    sentence = (
        f"memory: {gib(free)} free, about {gib(need)} needed with {config.cluster.gpus_per_node} worker(s) on the "
        "node: stop other processes here, request more (sbatch --mem), or lower cluster.gpus_per_node",
    )
    errors = sentence if free < MEMORY_SURE * need else ()
    notes = sentence if MEMORY_SURE * need <= free < need else ()
    return Check("memory", f"{gib(free)} free, about {gib(need)} needed", errors, notes)


def gpu_memory(config: DictConfig, count: int) -> Check:
    """Free memory of the first `count` GPUs against the plan, or vLLM's share if the plan does not apply."""
    fraction = config.actor_rollout_ref.rollout.gpu_memory_utilization
    found, errors, notes = [], [], []
    for index, total, free in visible_gpus()[:count]:
        need, reason = fraction * total, f"actor_rollout_ref.rollout.gpu_memory_utilization={fraction}"
        try:
            shape, _ = shapes.find_shape(config.model.path)
            planned = formulas.peak(shape, settings.read_setup(config), total)
        except UserError:
            planned = None
        if planned is not None and planned > remedies.USABLE * total:
            notes.append(
                f"GPU {index}: the run needs about {gib(planned)}, but the GPU has {gib(total)}: run python -m "
                "recipe.paec.plan to see which settings would fit"
            )
        elif planned is not None:
            need, reason = max(need, planned), "recipe.paec.plan"
        found.append(f"{index}: {gib(free)}")
        if free < need:
            errors.append(
                f"GPU {index}: {gib(free)} of {gib(total)} are free, {gib(need)} are needed ({reason}): stop what else "
                "uses it (nvidia-smi lists it), choose other GPUs with CUDA_VISIBLE_DEVICES, or lower "
                "actor_rollout_ref.rollout.gpu_memory_utilization"
            )
    return Check("GPU memory", "free on " + ", ".join(found) if found else "not known", tuple(errors), tuple(notes))
