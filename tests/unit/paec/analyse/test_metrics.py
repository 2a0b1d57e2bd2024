"""Validations in a run's metrics."""

from recipe.paec.analyse.metrics import MEASURED, NEXT, RECORDED, SAME, Validation, sources, validations

KEY = "val/gsm8k/avg@4"


def test_the_entropy_of_the_pipeline_is_that_of_the_next_step():
    """The log-prob pass of step 3 has the weights that the validation after step 2 had."""
    records = [
        {"step": 0, KEY: 0.1},
        {"step": 1, "actor/entropy": 1.0},
        {"step": 2, "actor/entropy": 0.8, KEY: 0.2},
        {"step": 3, "actor/entropy": 0.6},
        {"step": 4, "actor/entropy": 0.5, KEY: 0.3},
    ]
    assert validations(records) == {
        "val/gsm8k": [
            Validation(0, 0.1, 1.0, NEXT),
            Validation(2, 0.2, 0.6, NEXT),
            Validation(4, 0.3, 0.5, SAME),
        ]
    }


def test_the_entropy_of_the_laboratory_is_its_own():
    records = [{"step": 0, KEY: 0.1, "val/gsm8k/entropy": 0.7}, {"step": 1, "actor/entropy": 1.0}]
    assert validations(records) == {"val/gsm8k": [Validation(0, 0.1, 0.7, MEASURED)]}


def test_several_sets():
    records = [{"step": 0, "val/a/b/avg@8": 0.1, "held_out/a/b/avg@8": None}, {"step": 5, "held_out/a/b/avg@8": 0.5}]
    assert sources(records) == {"val/a/b": "val/a/b/avg@8", "held_out/a/b": "held_out/a/b/avg@8"}
    assert validations(records)["held_out/a/b"] == [Validation(5, 0.5, None, None)]


def test_recorded_runs():
    records = [{"step": 0, "accuracy": 0.4}, {"step": 1, "entropy": 0.2}]
    assert validations(records) == {RECORDED: [Validation(0, 0.4, 0.2, NEXT)]}
    assert sources([{"step": 1, "entropy": 0.2}]) == {}
