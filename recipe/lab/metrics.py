"""Metrics of a step under the pipeline's names, from its responses, advantages and updates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from paec_loss import Rollouts, Tokens, Update
from recipe.lab.batch import Batch
from recipe.lab.settings import Settings
from recipe.paec.run.metric_names import CUT_OFF
from recipe.paec.run.outcome_entropy import by_outcome


def clipped_shares(tokens: Tokens, update: Update) -> dict[str, float]:
    """Shares of the tokens at which the clip range, or the dual clip, holds the loss."""
    ratio, advantage, clip = tokens.log_ratio.detach().exp(), tokens.advantages, update.clip
    free, held = -advantage * ratio, -advantage * ratio.clamp(1 - clip.low, 1 + clip.high)
    below = (torch.maximum(free, held) > -advantage * clip.dual_clip) & (advantage < 0)
    return {
        "actor/pg_clipfrac": tokens.mean((held > free).float()),
        "actor/pg_clipfrac_lower": tokens.mean(below.float()),
    }


def response_metrics(batch: Batch, rollouts: Rollouts, advantage: Tensor, settings: Settings) -> dict[str, float]:
    """Of the step's prompts, responses, verdicts and advantages."""
    lengths, scores = rollouts.lengths.float(), batch.scores
    found = {
        "reward/format": _share(verdict.answer is not None for verdict in batch.verdicts),
        "reward/grader_error": _share(verdict.status == "error" for verdict in batch.verdicts),
        "reward/grader_timeout": _share(verdict.status == "timeout" for verdict in batch.verdicts),
        "actor/lr": settings.lr,
        "training/global_step": rollouts.step,
        **spread("critic/advantages", advantage[rollouts.response_mask]),
        **spread("response_length", lengths),
        CUT_OFF: rollouts.cut.float().mean().item(),
        **spread("prompt_length", batch.prompts.lengths.float()),
        "perf/total_num_tokens": int(lengths.sum()) + settings.responses * int(batch.prompts.lengths.sum()),
    }
    right = torch.tensor([verdict.correct for verdict in batch.verdicts])
    found |= by_outcome(rollouts.entropy, rollouts.response_mask, right, rollouts.cut)
    if not settings.stack.has("rewards"):
        found["reward/mixed_prompts"] = (scores.amax(1) > scores.amin(1)).float().mean().item()
    return found


def spread(name: str, values: Tensor) -> dict[str, float]:
    """`<name>/mean`, `/max` and `/min` of values."""
    return {
        f"{name}/{what}": f(values).item() for what, f in (("mean", torch.mean), ("max", torch.max), ("min", torch.min))
    }


def _share(flags: Iterable[bool]) -> float:
    values = [float(flag) for flag in flags]
    return sum(values) / len(values)


class timed:
    """Adds the seconds of a block as `timing_s/<stage>`, and the processor's as `timing_cpu_s/<stage>`."""

    def __init__(self, metrics: dict[str, float], stage: str, clock: Callable[[], float] = time.perf_counter):
        self._metrics, self._stage, self._clock = metrics, stage, clock

    def __enter__(self) -> None:
        self._began = self._clock(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self._metrics[f"timing_s/{self._stage}"] = self._clock() - self._began[0]
        self._metrics[f"timing_cpu_s/{self._stage}"] = time.process_time() - self._began[1]
