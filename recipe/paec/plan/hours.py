"""How long a run takes: from a stated throughput, or from the steps of a run with the same settings. Never a guess."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recipe.paec.common.errors import UserError
from recipe.paec.common.records import METRICS_FILE, read_metrics

NOT_KNOWN = (
    "duration: not known: give tokens_per_second=N (tokens of prompts and responses per second, all GPUs together), "
    "or measured=RUN, a run of a few steps with the same settings"
)
SAME = (
    "model.path",
    "cluster.platform",
    "cluster.nodes",
    "cluster.gpus_per_node",
    "cluster.tensor_parallel",
    "cluster.sequence_parallel",
    "data.train_files",
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.val_kwargs.n",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
    "algorithm.filter_groups.enable",
    "trainer.test_freq",
    "trainer.save_freq",
    "trainer.v1.trainer_mode",
)
"""Settings on which the duration of a step depends: a measured run must have the planned run's."""


@dataclass(frozen=True)
class Throughput:
    """What is known about the speed.

    tokens_per_second: tokens of prompts and responses per second of training, all GPUs together; stated.
    tokens_per_response: mean tokens of a prompt and its response; stated. None: the longest, so an upper bound.
    measured: a run's directory, instead of the two.
    """

    tokens_per_second: float | None = None
    tokens_per_response: float | None = None
    measured: Path | None = None


def read_throughput(arguments: Sequence[str]) -> tuple[Throughput, list[str]]:
    """The arguments of this module, and the others.

    Raises:
        UserError: a value that is not a positive number, or keys that do not go together.
    """
    given = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("tokens_per_second", "tokens_per_response", "measured"):
            given[key] = value
    numbers = {key: _positive(key, value) for key, value in given.items() if key != "measured"}
    if "measured" in given and numbers:
        raise UserError(f"measured and {next(iter(numbers))}: give only one: a measured run has its own throughput")
    if "tokens_per_response" in numbers and "tokens_per_second" not in numbers:
        raise UserError("tokens_per_response: has no effect without tokens_per_second: add tokens_per_second=N")
    measured = Path(given["measured"]).expanduser() if "measured" in given else None
    return Throughput(**numbers, measured=measured), [a for a in arguments if a.partition("=")[0] not in given]


def _positive(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{key}={value}: must be a number of tokens > 0")
    return number


def duration_line(config: DictConfig, known: Throughput) -> str:
    """One line: hours and GPU-hours of a resolved configuration, and what they come from; or that they are not known.

    Raises:
        UserError: the measured run cannot be read, has other settings or no complete step, or tokens_per_response is
            more than a prompt and a response can have.
    """
    steps, gpus = config.trainer.total_training_steps, config.cluster.nodes * config.cluster.gpus_per_node
    if known.measured is not None:
        seconds, count = measured_step(config, known.measured)
        return (
            f"duration: {_hours(steps * seconds, gpus)}: {steps} steps of {seconds:.1f} s, the mean of {count} "
            f"step{'s' * (count > 1)} of {known.measured} with validations and checkpoints; without the start, and "
            "longer if responses grow"
        )
    if known.tokens_per_second is None:
        return NOT_KNOWN
    if OmegaConf.select(config, "algorithm.filter_groups.enable"):
        return (
            "duration: not known: with algorithm.filter_groups.enable=true the responses of a step are not known "
            "beforehand; measure with measured=RUN"
        )
    responses = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    longest = config.data.max_prompt_length + config.data.max_response_length
    if (mean := known.tokens_per_response) is not None and mean > longest:
        raise UserError(
            f"tokens_per_response={mean:g}: is more than data.max_prompt_length + data.max_response_length = {longest}"
        )
    seconds = steps * responses * (mean or longest) / known.tokens_per_second
    origin = "given" if mean else "the maximum; give tokens_per_response=N if the mean is lower"
    return (
        f"duration: {'' if mean else 'at most '}{_hours(seconds, gpus)}: {steps} steps x {responses} responses x "
        f"{mean or longest:g} tokens ({origin}) at {known.tokens_per_second:g} tokens/s (given); without the start, "
        "validations and checkpoints"
    )


def measured_step(config: DictConfig, run: Path) -> tuple[float, int]:
    """Mean seconds of a run's steps, validations and checkpoints included, and the number of steps.

    The first step is left out if there are others: it compiles and warms up.

    Raises:
        UserError: see `duration_line`.
    """
    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"measured={run}: has no config.yaml: give the directory of a run")
    try:
        recorded = OmegaConf.load(file)
        differ = [key for key in SAME if _setting(recorded, key) != _setting(config, key)]
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"measured={run}: config.yaml cannot be read ({error}): give the directory of a run") from None
    if differ:
        key = differ[0]
        more = f" and in {len(differ) - 1} more settings" if len(differ) > 1 else ""
        raise UserError(
            f"measured={run}: that run differs in {key} ({_setting(recorded, key)} and here {_setting(config, key)})"
            f"{more}: measure with the same settings, or state tokens_per_second=N"
        )
    taken = [
        record["timing_s/step"] + (record.get("timing_s/testing") or 0.0)
        for record in read_metrics(run / METRICS_FILE)
        if record.get("timing_s/step") is not None
    ]
    if not taken:
        raise UserError(f"measured={run}: {METRICS_FILE} has no step with timing_s/step: let it train a few steps")
    steps = taken[1:] or taken
    return fmean(steps), len(steps)


def _setting(config: DictConfig, key: str) -> Any:
    found = OmegaConf.select(config, key)
    return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found


def _hours(seconds: float, gpus: int) -> str:
    hours = seconds / 3600
    return f"{_shown(hours)} h on {gpus} GPU{'s' * (gpus > 1)}, {_shown(hours * gpus)} GPU-hours"


def _shown(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"
