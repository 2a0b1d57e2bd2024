"""scores.json recomputed by hand from a small file of samples; its table; validation metrics; what is refused."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.scoring.display import in_papers_order, markdown, percent, table
from recipe.paec.scoring.estimators import bootstrap_interval
from recipe.paec.scoring.scores import per_problem, score, validation_metrics
from recipe.paec.scoring.verdicts import SampleVerdict


def sample(problem="a", index=0, correct=False, group=0, benchmark="aime24", **fields):
    return {
        "benchmark": benchmark,
        "problem": problem,
        "sample": index,
        "prompt": "What is 1 + 1?",
        "ground_truth": "2",
        "response": "\\boxed{2}",
        "seed": None,
        "answer": "2",
        "group": group,
        "correct": correct,
        "strict": correct,
        "status": "ok",
        "finish_reason": "stop",
        "tokens": 10,
    } | fields


def answers(problem, text, benchmark="aime24", **fields):
    """Samples from letters: R right, x y z wrong answers, - none."""
    groups = {}
    return [
        sample(
            problem,
            index,
            correct=letter == "R",
            group=None if letter == "-" else groups.setdefault(letter, len(groups)),
            benchmark=benchmark,
            status="unparsable" if letter == "-" else "ok",
            **fields,
        )
        for index, letter in enumerate(text)
    ]


BY_HAND = [
    *answers("a", "RxRx"),  # a tie, R first: right
    *answers("b", "xRRx"),  # a tie, x first: wrong
    *answers("c", "---R", tokens=40, finish_reason="length"),
    *answers("m", "Rx", benchmark="math500"),
    *answers("größe 7", "xR", benchmark="math500"),
]


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


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("benchmark", "", "must be a non-empty string, not ''"),
        ("problem", 3, "must be a non-empty string, not 3"),
        ("sample", -1, "must be an integer >= 0, not -1"),
        ("sample", True, "must be an integer >= 0, not True"),
        ("correct", 1, "must be true or false, not 1"),
        ("strict", None, "must be true or false, not None"),
        ("group", "0", "must be an integer >= 0, or null, not '0'"),
        ("group", 0.0, "must be an integer >= 0, or null, not 0.0"),
        ("status", "fine", "must be one of ok, unparsable, timeout, error, not 'fine'"),
        ("status", ["ok"], r"must be one of .*, not \['ok'\]"),
        ("finish_reason", 0, "must be a string or null, not 0"),
        ("tokens", math.nan, "must be an integer >= 0, or null, not nan"),
        ("tokens", KeyError, "is missing: give an integer >= 0, or null"),
    ],
)
def test_a_malformed_sample_is_named(field, value, message):
    samples = answers("a", "Rxx")
    if value is KeyError:
        del samples[1][field]
    else:
        samples[1][field] = value
    with pytest.raises(UserError, match=f"^run/samples.jsonl, line 2, field {field}: {message}"):
        score(samples, name="run/samples.jsonl")


def test_a_line_that_is_no_object_is_named():
    with pytest.raises(UserError, match="^samples.jsonl, line 2: must be an object, not list"):
        score([sample(), []])


def test_problems_of_a_benchmark_need_the_same_samples():
    with pytest.raises(UserError) as caught:
        score(answers("a", "RxRxRxRx") + answers("aime24-3", "R"))
    assert str(caught.value) == (
        "samples.jsonl: benchmark aime24, problem aime24-3: 1 of 8 samples, missing 1, 2, 3, 4, 5, ...: give every "
        "problem of a benchmark the same number of samples, numbered from 0"
    )
    with pytest.raises(UserError, match="problem b: 1 of 2 samples, missing 0: give"):
        score([*answers("a", "Rx"), sample("b", 1)])
    with pytest.raises(UserError, match=r"problem a: 2 of 1000000000001 samples, missing 1, 2, 3, 4, 5, \.\.\.: give"):
        score([sample("a", 0), sample("a", 10**12)])
    with pytest.raises(UserError, match="line 3: benchmark aime24, problem a, sample 1 occurs twice: remove"):
        score([*answers("a", "Rx"), sample("a", 1)])
    with pytest.raises(UserError, match="samples.jsonl: contains no samples"):
        score([])
    # Another benchmark may have another n.
    assert score(answers("a", "Rx") + answers("a", "R", benchmark="math500"))["benchmarks"]["math500"]["samples"] == 1


# ---- the table -------------------------------------------------------------------------------------------------------


def test_papers_order():
    given = ["zebra", "olympiadbench", "math500", "amc83", "Gsm|8k", "aime26", "minerva", "aime24", "amc23", "aime25"]
    assert in_papers_order(given) == [
        *("aime24", "aime25", "aime26", "amc23", "amc83", "math500", "minerva", "olympiadbench", "Gsm|8k", "zebra")
    ]


def test_percent():
    assert percent({"value": 0.43333, "low": 0.3, "high": 0.56667}) == "43.3 [30.0, 56.7]"
    assert percent(bootstrap_interval([1.0])) == "100.0"


def test_markdown_escapes_and_aligns():
    assert markdown([["", "a|b"], ["größe", "1"]]) == (
        "|       | a\\|b |\n"
        "| ----- | ---: |\n"
        "| größe |    1 |\n"
    )  # fmt: skip


def test_table():
    samples = [*answers("p", "RxRx", benchmark="other"), *answers("a", "RRR-"), *answers("m", "x", benchmark="minerva")]
    samples[-1] |= {"finish_reason": None, "tokens": None}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(score(samples)).splitlines()]
    assert rows == [
        ["", "AIME24", "Minerva", "other", "Avg"],
        ["-" * 16, "-" * 5 + ":", "-" * 6 + ":", "-" * 4 + ":", "-" * 3 + ":"],
        ["problems", "1", "1", "1", ""],
        ["samples n", "4", "1", "4", ""],
        ["avg@n", "75.0", "0.0", "50.0", "41.7"],
        ["maj@n", "100.0", "0.0", "100.0", "66.7"],
        ["pass@n", "100.0", "0.0", "100.0", "66.7"],
        ["truncated", "0.0", "unknown", "0.0", ""],
        ["unparsable", "25.0", "0.0", "0.0", ""],
        ["grader failed", "0.0", "0.0", "0.0", ""],
        ["graders disagree", "0.0", "0.0", "0.0", ""],
        ["mean length", "10", "unknown", "10", ""],
    ]
    assert "25.0]" in table(score(BY_HAND)) or "[25.0" in table(score(BY_HAND))


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
