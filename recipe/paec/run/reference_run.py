"""Recorded runs of the quick start, which a run of the same seed is compared with; made by `benchmarks.first_run`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from recipe.paec.common.records import read_metrics
from recipe.paec.common.repository import IS_CHECKOUT, REPOSITORY
from recipe.paec.config.resolve import run_suffix

FOLDER = REPOSITORY / "benchmarks" / "results" / "first_run"
"""One file for each method, `<method>.jsonl`: first what was run (`about`), then a line a step."""
EXPERIMENT, BASELINE = "tiny_cpu", "none"
"""The quick start's experiment, and the method that is GRPO alone."""


def about(config: DictConfig) -> dict[str, Any]:
    """What two runs must have in common to be compared: everything but the method, the length and the place.

    Args:
        config: a resolved configuration.
    """
    return {
        "experiment": str(config.run.experiment),
        "seed": int(config.seed),
        "changed": run_suffix([o for o in config.run.overrides if not _is_seed_or_method(o)]),
    }


def _is_seed_or_method(override: str) -> bool:
    return override.lstrip("+~").startswith(("seed=", "method=", "method."))


def grpo_of(config: DictConfig, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The recorded GRPO run that a run may be compared with; empty where there is none, and for GRPO itself.

    Returns:
        Lines with `step` and, where they were recorded, `entropy` (nats) and `accuracy`.
    """
    file = folder / f"{BASELINE}.jsonl"
    if not _compared(config) or not file.is_file():
        return []
    lines = read_metrics(file)
    return lines[1:] if lines[:1] == [about(config)] else []


def _compared(config: DictConfig) -> bool:
    return config.run.experiment == EXPERIMENT and config.identity.get("method") != BASELINE


def absent(config: DictConfig) -> list[str]:
    """A sentence for the summary of a run that would be compared, had the recipe not been installed from a wheel."""
    if IS_CHECKOUT or not _compared(config):
        return []
    return ["  the recorded GRPO run to compare it with is only in a checkout of the repository"]


def column(lines: Iterable[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of the recorded lines that have `key`."""
    having = [line for line in lines if key in line]
    return [line["step"] for line in having], [line[key] for line in having]
