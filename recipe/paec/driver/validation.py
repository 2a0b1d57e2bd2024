"""Validation during training and rewards of a step as metrics, by the graders and estimators of the evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from recipe.grading.pool import GraderPool
from recipe.grading.sources import OWN_NONE
from recipe.paec.common.errors import UserError
from recipe.paec.common.queue_keys import prompt_of
from recipe.paec.rollout.rewards import METRIC
from recipe.paec.run.metric_names import CUT_OFF
from recipe.paec.run.summary import accuracy
from recipe.paec.scoring.scores import validation_metrics
from recipe.paec.scoring.verdicts import SampleVerdict

REWARD_SHARES = ("format", "grader_error", "grader_timeout", "repetition")
"""Keys of `rewards.compute_score` that become metrics below `reward/`: shares of the responses of a step."""


def validation_scores(
    data_sources: Sequence[str],
    problem_ids: Sequence[str],
    infos: Mapping[str, Sequence[Any]],
    expected: Mapping[tuple[str, str], int],
    scorers: Mapping[str, str] = OWN_NONE,
) -> dict[str, float]:
    """`val/<data source>/...` of one validation (recipe.paec.scoring.scores.validation_metrics).

    With a scorer from outside also `val/<data source>/metric/<name>`: the means of its score and of what it measured,
    over the samples that have it.

    Args:
        data_sources, problem_ids: one entry a sample.
        infos: the keys of `rewards.compute_score`, one entry per sample; None for a sample that was never scored.
        expected: samples drawn, by (data source, problem id); the same number for all.
        scorers: data source -> scorer (`reward.scorers`).
    """
    answers: dict[tuple[str, str], list[int]] = {}
    for index, key in enumerate(zip(data_sources, problem_ids, strict=True)):
        if infos["acc"][index] is not None:
            answers.setdefault(key, []).append(index)
    groups: dict[int, int | None] = {}
    with GraderPool(scorers=scorers) as pool:
        given = (
            (source, [infos["pred"][i] or None for i in of_problem]) for (source, _), of_problem in answers.items()
        )
        for of_problem, numbers in zip(answers.values(), pool.groups(given), strict=True):
            groups |= dict(zip(of_problem, numbers, strict=True))
    kept = sorted(groups)
    measured: dict[str, list[float]] = {}
    for key in (key for key in infos if key.startswith(METRIC)):
        for i in kept:
            if infos[key][i] is not None:
                measured.setdefault(f"val/{data_sources[i]}/{key}", []).append(infos[key][i])
    return {key: fmean(values) for key, values in measured.items()} | validation_metrics(
        [data_sources[i] for i in kept],
        [problem_ids[i] for i in kept],
        [_verdict({key: values[i] for key, values in infos.items()}, groups[i]) for i in kept],
        problems=Counter(source for source, _ in expected),
        samples=max(expected.values()),
    )


def _verdict(info: Mapping[str, Any], group: int | None) -> SampleVerdict:
    flags = {"unparsable": "unparsable", "grader_timeout": "timeout", "grader_error": "error"}
    status = next((status for key, status in flags.items() if info[key]), "ok")
    return SampleVerdict(correct=info["acc"] == 1.0, strict=info["strict"] == 1.0, group=group, status=status)


def best_score(record: Mapping[str, Any], metric: str | None) -> float | None:
    """The score of the policy of a step: `metric`, or the mean of all avg@n; None without it."""
    if metric is not None:
        return record.get(metric)
    averages = accuracy(record).values()
    return fmean(averages) if averages else None


def check_best_metric(record: Mapping[str, Any], metric: str | None) -> None:
    """UserError if the record of a step has a validation, but no such metric."""
    scores = sorted(key for key in record if key.startswith("val/"))
    if metric is not None and scores and metric not in scores:
        raise UserError(f"run.best_metric={metric}: must be one of {', '.join(scores)}, which the validation gives")


def reward_metrics(infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`reward/<share>` of a training step: responses with an answer, that repeat themselves, or that were not graded.

    And `reward/metric/<name>`: what scorers from outside measured, over the responses that have it.
    """
    shares = {f"reward/{key}": fmean(info[key] for info in infos) for key in REWARD_SHARES}
    names = dict.fromkeys(key for info in infos for key in info if key.startswith(METRIC))
    return shares | {f"reward/{key}": fmean(info[key] for info in infos if key in info) for key in names}


def at_the_limit(tags: Sequence[Mapping[str, Any]], limit: int) -> list[bool]:
    """Whether each response of a training step is as long as `limit`, from the queue's tags; padding is left out."""
    return [tag["response_len"] >= limit for tag in tags if not tag.get("is_padding", False)]


def cut_off(tags: Sequence[Mapping[str, Any]], limit: int) -> dict[str, float]:
    """`reward/cut_off` of a training step."""
    return {CUT_OFF: fmean(at_the_limit(tags, limit))}


def mixed_prompts(keys: Sequence[str], infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`reward/mixed_prompts` of a training step: the share of its prompts whose responses differ in their score.

    A group-relative advantage is 0 for every other prompt. Empty if each prompt has one response.

    Args:
        keys: names of the responses in the queue, `<prompt>_<response>_<output>`.
        infos: what `rewards.compute_score` returned for each of them.
    """
    scores: dict[str, list[float]] = {}
    for key, info in zip(keys, infos, strict=True):
        scores.setdefault(prompt_of(key), []).append(info["score"])
    several = [found for found in scores.values() if len(found) > 1]
    return {"reward/mixed_prompts": fmean(len(set(found)) > 1 for found in several)} if several else {}
