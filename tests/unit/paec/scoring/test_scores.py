"""scores.json recomputed by hand from a small file of samples; validation metrics."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from graded_samples import BY_HAND, answers, sample

from recipe.paec.scoring.estimators import bootstrap_interval
from recipe.paec.scoring.scores import per_problem, score, validation_metrics
from recipe.paec.scoring.verdicts import SampleVerdict


def test_scores_by_hand():
    samples = [dict(s) for s in BY_HAND]
    samples[0]["strict"] = False
    samples[1]["strict"] = samples[3]["strict"] = True
    samples[4]["status"], samples[5]["status"] = "timeout", "error"
    found = score(json.loads(json.dumps(samples)))
    assert found["format"] == 1 and list(found["benchmarks"]) == ["aime24", "math500"]
    aime = found["benchmarks"]["aime24"]
    assert (aime["problems"], aime["samples"]) == (3, 4)
    assert aime["avg"]["value"] == pytest.approx(5 / 12)  # 2, 2 and 1 of 4
    assert aime["strict_avg"]["value"] == pytest.approx(6 / 12)  # 3, 2 and 1
    # maj@2, blocks of two: a (R x)(R x) 1; b (x R)(R x) 1/2; c (- -)(- R) 1/2.
    maj = {k: estimate["value"] for k, estimate in aime["maj"].items()}
    assert maj == {"1": pytest.approx(5 / 12), "2": pytest.approx(2 / 3), "4": pytest.approx(2 / 3)}
    # 1 - C(4-c, k) / C(4, k) with c = 2, 2, 1.
    passed = {k: estimate["value"] for k, estimate in aime["pass"].items()}
    assert passed == pytest.approx({"1": 5 / 12, "2": (5 / 6 * 2 + 1 / 2) / 3, "3": (1 + 1 + 3 / 4) / 3, "4": 1.0})
    assert aime["disagreement"] == pytest.approx(3 / 12)
    assert aime["truncated"] == pytest.approx(4 / 12)
    assert aime["unparsable"] == pytest.approx(3 / 12)
    assert aime["grader_timeout"] == aime["grader_error"] == pytest.approx(1 / 12)
    assert aime["mean_length"] == pytest.approx((8 * 10 + 4 * 40) / 12)
    assert aime["inconsistent_groups"] == 0
    assert aime["per_problem"] == {
        "a": {"correct": 2, "strict": 3, "maj": 1},
        "b": {"correct": 2, "strict": 2, "maj": 0},
        "c": {"correct": 1, "strict": 1, "maj": 1},
    }
    mean = {metric: estimate["value"] for metric, estimate in found["average"].items()}
    assert mean == pytest.approx({"avg": (5 / 12 + 1 / 2) / 2, "maj": (2 / 3 + 1 / 2) / 2, "pass": 1.0})


def test_intervals_are_the_bootstrap_over_problems():
    found = score(BY_HAND)
    aime = found["benchmarks"]["aime24"]
    for metric, values, estimate in [
        ("avg", [0.5, 0.5, 0.25], aime["avg"]),
        ("maj", [1.0, 0.0, 1.0], aime["maj"]["4"]),
        ("pass@2", [5 / 6, 5 / 6, 1 / 2], aime["pass"]["2"]),
        ("pass", [1.0, 1.0, 1.0], aime["pass"]["4"]),
    ]:
        np.testing.assert_allclose(per_problem(aime, metric), values)
        expected = bootstrap_interval(values)
        assert tuple(estimate.values()) == pytest.approx((expected.value, expected.low, expected.high))
    both = bootstrap_interval([0.5, 0.5, 0.25], [0.5, 0.5])
    assert tuple(found["average"]["avg"].values()) == pytest.approx((both.value, both.low, both.high))


def test_the_order_of_samples_does_not_matter():
    shuffled = list(BY_HAND)
    random.Random(0).shuffle(shuffled)
    assert json.dumps(score(shuffled)) == json.dumps(score(BY_HAND))


def test_one_problem_one_sample():
    found = score([sample(correct=True)])["benchmarks"]["aime24"]
    assert found["avg"] == found["maj"]["1"] == found["pass"]["1"] == {"value": 1.0, "low": None, "high": None}
    assert list(found["maj"]) == list(found["pass"]) == ["1"]


def test_every_k_of_pass_and_powers_of_two_of_maj():
    found = score(answers("a", "RxRxRxRxRxRx") + answers("b", "x" * 12))["benchmarks"]["aime24"]
    assert list(found["pass"]) == [str(k) for k in range(1, 13)]
    assert list(found["maj"]) == ["1", "2", "4", "8", "12"]


def test_what_is_unknown_of_one_sample_is_null():
    samples = answers("a", "Rx")
    samples[1] |= {"finish_reason": None, "tokens": None}
    found = score(samples)["benchmarks"]["aime24"]
    assert found["truncated"] is None and found["mean_length"] is None
    assert found["avg"]["value"] == 0.5


def test_contradictory_groups_are_counted():
    samples = [sample("a", 0, True), sample("a", 1, False), sample("b", 0, True), sample("b", 1, True)]
    assert score(samples)["benchmarks"]["aime24"]["inconsistent_groups"] == 1


# ---- validation during training --------------------------------------------------------------------------------------


def validated(given, **expected):
    return validation_metrics(
        [s["benchmark"] for s in given],
        [s["problem"] for s in given],
        [SampleVerdict(s["correct"], s["strict"], s["group"], s["status"]) for s in given],
        **expected,
    )


def test_validation_uses_the_same_estimators():
    samples = [s for s in BY_HAND if s["benchmark"] == "aime24"]
    samples[0] = samples[0] | {"strict": False}
    found, scores = validated(samples, problems={"aime24": 3}, samples=4), score(samples)["benchmarks"]["aime24"]
    assert found == pytest.approx(
        {
            "val/aime24/avg@4": scores["avg"]["value"],
            "val/aime24/maj@4": scores["maj"]["4"]["value"],
            "val/aime24/pass@1": scores["pass"]["1"]["value"],
            "val/aime24/pass@2": scores["pass"]["2"]["value"],
            "val/aime24/pass@4": scores["pass"]["4"]["value"],
            "val/aime24/strict_avg": 4 / 12,
            "val/aime24/disagreement": 1 / 12,
            "val/aime24/unparsable": 3 / 12,
            "val/aime24/grader_timeout": 0.0,
            "val/aime24/grader_error": 0.0,
            "val/aime24/missing": 0.0,
        }
    )


def test_lost_samples_count_as_wrong():
    # Of two problems with 4 samples: one is wholly lost, the other lost two of its four.
    found = validated(answers("a", "RR"), problems={"aime24": 2, "math500": 1}, samples=4)
    assert found["val/aime24/maj@4"] == 0.0  # "RR" may be what is left of "xxRR"
    assert found["val/aime24/avg@4"] == found["val/aime24/strict_avg"] == 2 / 8
    assert found["val/aime24/pass@1"] == pytest.approx(0.25)
    assert found["val/aime24/pass@2"] == pytest.approx((1 - 1 / 6) / 2)
    assert found["val/aime24/missing"] == 6.0
    assert found["val/aime24/unparsable"] == found["val/aime24/disagreement"] == 0.0
    assert found["val/math500/missing"] == 4.0 and found["val/math500/pass@4"] == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_losing_samples_never_raises_a_score(seed):
    rng = random.Random(seed)
    samples = answers("a", "xxRR") + answers("b", "xyRx") + answers("c", "RRRR")
    whole = validated(samples, problems={"aime24": 3}, samples=4)
    rest = validated(rng.sample(samples, 7), problems={"aime24": 3}, samples=4)
    assert rest["val/aime24/missing"] == 5.0
    for name in ("avg@4", "maj@4", "pass@1", "pass@2", "pass@4", "strict_avg"):
        assert rest[f"val/aime24/{name}"] <= whole[f"val/aime24/{name}"] + 1e-12


def test_validation_names_what_it_did_not_expect():
    with pytest.raises(ValueError, match="3 samples of aime24, problem a, expected 2"):
        validated(answers("a", "Rxx"), problems={"aime24": 1}, samples=2)
    with pytest.raises(ValueError, match="2 problems of aime24, expected 1"):
        validated(answers("a", "R") + answers("b", "R"), problems={"aime24": 1}, samples=1)
    with pytest.raises(ValueError, match=r"unexpected data source aime24, expected math500"):
        validated(answers("a", "R"), problems={"math500": 1}, samples=1)
