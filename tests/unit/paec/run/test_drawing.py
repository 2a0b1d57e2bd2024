"""Curves of plain characters, by hand."""

from __future__ import annotations

import math
import random
import sys
from statistics import fmean

import pytest

from recipe.paec.run.drawing import Curve, drawn, smoothed


def test_one_character_a_step():
    curves = [Curve("-", "floor", [1, 2, 3], [1.0, 1.0, 1.0]), Curve("*", "entropy", [1, 2, 3], [3.0, 2.0, 1.0])]
    assert drawn(curves, "nats", width=10, height=3) == [
        "- floor, * entropy (nats)",
        "3.0000 |*",
        "       | *",
        "1.0000 |--*",
        "       +---",
        "        1 step 3",
    ]


def test_many_steps_share_a_column():
    """100 steps in ten columns: each shows the mean of ten, so the drawing reaches from 5.5 to 95.5."""
    steps = list(range(1, 101))
    lines = drawn([Curve("*", "x", steps, [float(step) for step in steps])], "", width=10, height=10)
    assert lines[0] == "* x"
    assert lines[1] == "95.5000 |         *" and lines[10] == " 5.5000 |*"
    assert lines[12] == "         1 step 100"
    assert all(line.count("*") == 1 for line in lines[1:11])


def test_gaps_and_constants():
    lines = drawn([Curve("*", "x", [1, 2, 3], [0.5, None, 0.5])], "nats", width=5, height=2)
    assert lines == ["* x (nats)", "0.5000 |", "0.5000 |* *", "       +---", "        1 step 3"]


def test_moving_average():
    assert smoothed([1.0, 2.0, 6.0, 0.0], 3) == [1.5, 3.0, 8 / 3, 3.0]
    assert smoothed([1.0, None, 6.0, 0.0], 3) == [1.0, None, 3.0, 3.0]
    assert smoothed([1.0, 2.0], 1) == [1.0, 2.0]


@pytest.mark.parametrize("width", [1, 7, 101, 1001])
def test_moving_average_against_the_mean_of_each_window(width):
    draw, half = random.Random(width), width // 2
    values = [None if draw.random() < 0.2 else draw.uniform(0, 3) * 10 ** draw.randint(-9, 9) for _ in range(300)]
    windows = [[v for v in values[max(0, i - half) : i + half + 1] if v is not None] for i in range(300)]
    expected = [None if v is None else fmean(window) for v, window in zip(values, windows, strict=True)]
    assert smoothed(values, width) == expected


def test_moving_average_of_what_is_not_finite():
    assert smoothed([1.0, math.nan, 3.0, math.inf, 5.0], 3) == [1.0, None, 3.0, None, 5.0]


def test_a_wide_moving_average_does_no_more_work_than_a_narrow_one():
    """Lines run, not seconds: a sum over every window would run through 2,001 values at each place."""

    def lines_run(width: int) -> int:
        run = 0

        def count(frame, event, argument):
            nonlocal run
            run += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            smoothed([float(i % 7) for i in range(3000)], width)
        finally:
            sys.settrace(before)
        return run

    assert lines_run(2001) < 1.5 * lines_run(3)


def test_nothing_to_draw():
    assert drawn([], "nats") == []
    assert drawn([Curve("*", "x", [1, 2], [1.0, None])], "nats") == []
    assert drawn([Curve("*", "x", [1, 2], [1.0, 2.0]), Curve("o", "y", [], [])], "nats")[0] == "* x (nats)"
