"""The lines that a run prints."""

from __future__ import annotations

from recipe.paec.run.summary import closing_lines, step_line, tail_mean


def test_a_gap_at_the_end_is_not_averaged_away():
    assert tail_mean([{"a": 1.0}, {"a": None}], "a") is None
    assert tail_mean([{"a": float(i)} for i in range(20)], "a") == 18.5
    assert tail_mean([], "a") is None


def test_lines_for_people():
    first = {"step": 0, "val/task/avg@8": 0.25}
    middle = {
        "step": 1,
        "actor/entropy": 0.5,
        "actor/paec/selected_entropy": 0.4,
        "actor/paec/anchor": 0.3,
        "actor/paec/floor": 0.24,
        "actor/paec/penalty_active": 1.0,
    }
    last = {**middle, "step": 2, "actor/entropy": 0.45, "val/task/avg@8": 0.5}
    assert step_line(middle, 2).startswith("step    1/2  entropy 0.5000  Hbar 0.4000  anchor 0.3000  floor 0.2400")
    text = "\n".join(closing_lines([first, middle, last], {"metrics": "there"}))
    assert "task/avg@8: 0.250 (step 0) -> 0.500 (step 2)" in text
    assert "0.5000 (step 1) -> 0.4500" in text and "was active in 2 of 2 steps" in text and "metrics: there" in text
