"""Validation during training: hand-computed metrics from what the reward function returns."""

from __future__ import annotations

import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.driver.validation import (
    best_score,
    check_best_metric,
    cut_off,
    mixed_prompts,
    reward_metrics,
    validation_scores,
)


def info(pred: str, acc: float, strict: float | None = None, **flags) -> dict:
    strict = acc if strict is None else strict
    keys = {"score": acc, "acc": acc, "strict": strict, "pred": pred, "format": float(bool(pred))}
    keys["unparsable"] = float(not pred)
    return {**keys, "grader_error": 0.0, "grader_timeout": 0.0, "repetition": 0.0, **flags}


def columns(infos: list[dict | None]) -> dict[str, list]:
    keys = info("1", 1.0)
    return {key: [None if one is None else one[key] for one in infos] for key in keys}


def test_by_hand():
    """Two problems of four samples; one sample was lost, and one half is written in two ways."""
    infos = [
        info("\\frac{1}{2}", 1.0),
        info("0.5", 1.0, strict=0.0),
        info("7", 0.0),
        info("", 0.0),
        info("12 \\& 7", 0.0, unparsable=1.0),  # an answer, but not one that can be read
        info("4", 1.0),
        info("9", 0.0, grader_timeout=1.0),
        None,
    ]
    sources, ids = ["aime24"] * 8, ["a"] * 4 + ["b"] * 4
    found = validation_scores(sources, ids, columns(infos), {("aime24", "a"): 4, ("aime24", "b"): 4})
    assert found == pytest.approx(
        {
            "val/aime24/avg@4": (2 / 4 + 1 / 4) / 2,
            "val/aime24/maj@4": 1 / 2,  # a: one half twice; b: three answers once each, a wrong one came first
            "val/aime24/pass@1": (2 / 4 + 1 / 4) / 2,
            "val/aime24/pass@2": ((1 - 1 / 6) + (1 - 3 / 6)) / 2,
            "val/aime24/pass@4": 1.0,
            "val/aime24/strict_avg": (1 / 4 + 1 / 4) / 2,
            "val/aime24/disagreement": 1 / 8,
            "val/aime24/unparsable": 2 / 8,
            "val/aime24/grader_timeout": 1 / 8,
            "val/aime24/grader_error": 0.0,
            "val/aime24/missing": 1.0,
        }
    )


def test_a_response_that_divides_by_zero():
    infos = columns([info("2", 1.0), info("1/0", 0.0), info("1/0", 0.0), info("3", 0.0)])
    found = validation_scores(["aime24"] * 4, ["a"] * 4, infos, {("aime24", "a"): 4})
    assert found["val/aime24/avg@4"] == 0.25
    assert found["val/aime24/maj@4"] == 0.0, "1/0 is the answer of two"


def test_a_lost_problem_is_a_wrong_one():
    found = validation_scores(["s"], ["a"], columns([info("1", 1.0)]), {("s", "a"): 1, ("s", "b"): 1})
    assert found["val/s/avg@1"] == 0.5 and found["val/s/missing"] == 1.0


def test_rewards_of_a_step():
    step = [info("1", 1.0), info("", 0.0), info("2", 0.0, grader_error=1.0), info("3", 0.0, repetition=1.0)]
    shares = {"format": 0.75, "grader_error": 0.25, "grader_timeout": 0.0, "repetition": 0.25}
    assert reward_metrics(step) == {f"reward/{name}": share for name, share in shares.items()}


def test_prompts_with_different_scores():
    """Of two prompts with two responses each, one has a right and a wrong response; a single response says nothing."""
    keys = ["000001-000000_0_0", "000001-000001_0_0", "000001-000000_1_0", "000001-000001_1_0"]
    step = [info("1", 1.0), info("2", 0.0), info("3", 0.0), info("4", 0.0)]
    assert mixed_prompts(keys, step) == {"reward/mixed_prompts": 0.5}
    assert mixed_prompts(keys[1::2], step[1::2]) == {"reward/mixed_prompts": 0.0}
    assert mixed_prompts(keys[:2], step[:2]) == {}


def test_responses_that_were_cut_off():
    """At the limit, not at the longest response of the step; padding is no response."""
    tags = [{"response_len": length} for length in (23, 20, 23, 18)] + [{"response_len": 32, "is_padding": True}]
    assert cut_off(tags, 32) == {"reward/cut_off": 0.0}
    assert cut_off(tags, 23) == {"reward/cut_off": 0.5}


def test_what_is_best():
    record = {"step": 4, "val/a/avg@4": 0.5, "val/b/avg@4": 0.25, "val/b/maj@4": 1.0, "actor/entropy": 9.0}
    assert best_score(record, None) == 0.375
    assert best_score(record, "val/b/maj@4") == 1.0
    assert best_score({"step": 5, "actor/entropy": 9.0}, "val/b/maj@4") is None
    with pytest.raises(UserError, match="run.best_metric=val/c: must be one of val/a/avg@4, val/b/avg@4"):
        check_best_metric(record, "val/c")
    assert best_score(record, "val/c") is None, "the step is saved first, without a score"
    for metric, step in ((None, record), ("val/b/maj@4", record), ("val/c", {"step": 5, "actor/entropy": 9.0})):
        check_best_metric(step, metric)


def test_what_own_scorers_measured_is_averaged_over_the_responses_that_have_it():
    mine = [info("a", 0.0, score=0.5, **{"metric/score": 0.5, "metric/length": 3.0}), info("b", 1.0)]
    mine[1] |= {"score": 2.0, "metric/score": 2.0}
    assert reward_metrics([*mine, info("1", 1.0)]) == {
        "reward/format": 1.0,
        "reward/grader_error": 0.0,
        "reward/grader_timeout": 0.0,
        "reward/repetition": 0.0,
        "reward/metric/score": 1.25,
        "reward/metric/length": 3.0,
    }
    keys = dict.fromkeys(key for one in mine for key in one)
    infos = {key: [one.get(key) for one in [*mine, info("1", 1.0)]] for key in keys}
    expected = {("mine", "a"): 2, ("aime24", "b"): 2}
    found = validation_scores(["mine", "mine", "aime24"], ["a", "a", "b"], infos, expected, {"mine": "pkg:score"})
    measured = {key: value for key, value in found.items() if "/metric/" in key}
    assert measured == {"val/mine/metric/score": 1.25, "val/mine/metric/length": 3.0}
    assert (found["val/mine/avg@2"], found["val/mine/pass@2"], found["val/aime24/avg@2"]) == (0.5, 1.0, 0.5)


def test_answers_of_an_own_scorer_are_equal_if_their_text_is():
    infos = columns([info("1/2", 0.0), info("0.5", 1.0), info("0.5", 1.0)])
    place = (["mine"] * 3, ["a"] * 3, infos, {("mine", "a"): 3})
    assert validation_scores(*place, {"mine": "exact_match"})["val/mine/maj@3"] == 1.0
    assert validation_scores(*place, {"mine": "math"})["val/mine/maj@3"] == 0.0, "all three are one half, wrong first"
