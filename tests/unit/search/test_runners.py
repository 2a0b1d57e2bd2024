"""What a run has cost, from its metrics."""

from __future__ import annotations

from recipe.search.runners import Ended, spent_by


def test_cost_of_a_run():
    lines = [
        {"step": 0, "val/x/avg@4": 0.5},
        *({"step": s, "timing_s/step": 2.0, "timing_cpu_s/step": s} for s in (1, 2)),
    ]
    assert spent_by(lines) == {"steps": 2, "seconds": 4.0, "cpu_seconds": 3}
    without = [{"step": 1, "timing_s/step": 2.0}]
    assert spent_by(without) == {"steps": 1, "seconds": 2.0, "cpu_seconds": None}


def test_ends_are_separate():
    one, other = Ended(), Ended()
    one.failures["a"] = "b"
    assert other.failures == {} and other.code is None
