"""The number of a run that a search maximises, by hand, and what is refused as one."""

from __future__ import annotations

import pytest

from recipe.paec.common.errors import UserError
from recipe.search.objective import Objective, metrics_of, objective_of

LINES = [
    {"step": 0, "val/a/avg@4": 0.9, "val/a/pass@4": 0.9, "held_out/a/avg@4": 1.0},
    {"step": 1, "actor/entropy": 0.5},
    {"step": 2, "val/a/avg@4": 0.5, "val/a/pass@4": 0.8},
    {"step": 6, "val/a/avg@4": 0.3, "val/a/pass@4": 1.0},
]
TWO_SETS = [{"step": 6, "val/a/avg@4": 0.3, "val/b/c/avg@4": 0.5, "val/a/pass@4": 1.0}]


@pytest.mark.parametrize(
    "objective, value",
    [
        (Objective("last", ("avg@4",)), 0.3),
        (Objective("best", ("avg@4",)), 0.5),  # 0.9 is the untrained policy's
        (Objective("area", ("avg@4",)), (2 * 0.7 + 4 * 0.4) / 6),
        # Above (0.2, 0.7): (0.7, 0.2), (0.3, 0.1) and (0.1, 0.3); the second is below the first.
        (Objective("hypervolume", ("avg@4", "pass@4"), (0.2, 0.7)), 0.7 * 0.2 + 0.1 * 0.1),
    ],
)
def test_values_by_hand(objective, value):
    assert objective.value(LINES, 6) == pytest.approx(value)


def test_several_validation_sets_are_averaged():
    assert Objective("last", ("avg@4",)).value(TWO_SETS, 6) == pytest.approx(0.4)
    assert Objective("area", ("avg@4",)).value(TWO_SETS, 6) == pytest.approx(0.4), "a single validation"


@pytest.mark.parametrize(
    "lines, sentence",
    [
        (LINES[:3], "there is no validation after step 6"),
        ([], "there is no validation after step 6"),
        ([*LINES[:3], {"step": 6, "val/a/avg@4": None}], "the validation of step 6 has no avg@4"),
        ([*LINES[:3], {"step": 6, "val/a/avg@8": 0.5}], "the validation of step 6 has no avg@4"),
    ],
)
def test_a_run_without_one(lines, sentence):
    with pytest.raises(ValueError, match=sentence):
        Objective("last", ("avg@4",)).value(lines, 6)


def test_metrics_of_a_validation():
    assert metrics_of(6, ("avg", "pass", "distinct")) == ["avg@6", "pass@1", "pass@2", "pass@4", "pass@6", "distinct@6"]
    Objective("last", ("pass@2",)).check(metrics_of(4, ("avg", "pass")))
    with pytest.raises(UserError) as caught:
        Objective("last", ("avg@32",)).check(["avg@3", "pass@1"])
    assert str(caught.value) == (
        "objective.of: avg@32 is not a metric of these validations: did you mean avg@3? They have avg@3, pass@1 (test "
        "problems must not influence the choice)"
    )


def test_what_a_file_says():
    assert objective_of({"take": "last", "of": "avg@4"}) == Objective("last", ("avg@4",))
    found = objective_of({"take": "hypervolume", "of": ["avg@4", "pass@4"], "reference": [0.3, 1]})
    assert found == Objective("hypervolume", ("avg@4", "pass@4"), (0.3, 1.0))
    assert objective_of(found.written()) == found
    assert found.sentence() == "hypervolume of avg@4 and pass@4 above (0.3, 1.0)"


@pytest.mark.parametrize(
    "written, sentence",
    [
        ("avg@4", "objective: must be like {take: last"),
        ({"take": "last"}, "objective: must be like {take: last"),
        ({"take": "last", "of": "avg@4", "on": "test"}, "objective: must be like {take: last"),
        ({"take": "first", "of": "avg@4"}, "objective.take=first: must be one of last, best, area, hypervolume"),
        ({"take": "last", "of": 4}, "objective.of=4: must be the name of a metric"),
        ({"take": "last", "of": ["avg@4", "pass@4"]}, "objective.of: take: last needs one metric"),
        (
            {"take": "hypervolume", "of": ["avg@4", "avg@4"]},
            "objective.of: take: hypervolume needs two different metrics",
        ),
        ({"take": "last", "of": "avg@4", "reference": [0, 0]}, "objective.reference=[0, 0]: must be two numbers"),
        (
            {"take": "hypervolume", "of": ["avg@4", "pass@4"], "reference": [0.3]},
            "objective.reference=[0.3]: must be two numbers",
        ),
        (
            {"take": "hypervolume", "of": ["avg@4", "pass@4"], "reference": [float("nan"), 0]},
            "objective.reference=[nan, 0]: must be two numbers",
        ),
    ],
)
def test_a_bad_objective_is_one_sentence(written, sentence):
    with pytest.raises(UserError) as caught:
        objective_of(written)
    assert str(caught.value).startswith(sentence)
