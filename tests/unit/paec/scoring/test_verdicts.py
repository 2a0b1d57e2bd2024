"""Malformed samples are named."""

from __future__ import annotations

import math

import pytest
from graded_samples import answers, sample

from recipe.paec.common.errors import UserError
from recipe.paec.scoring.scores import score


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
