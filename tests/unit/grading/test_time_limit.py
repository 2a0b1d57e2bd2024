"""A time limit interrupts a regular expression, and limits nest."""

from __future__ import annotations

import re
import time

import pytest

from recipe.grading.time_limit import time_limit


def test_a_time_limit_interrupts_a_regular_expression():
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="not finished within 0.2 s"), time_limit(0.2):
        re.fullmatch("(a+)+b", "a" * 60)
    assert time.monotonic() - start < 5.0


def test_limits_nest_and_leave_nothing_behind():
    with pytest.raises(TimeoutError, match="within 0.3 s"), time_limit(0.3):
        for _ in range(1000):
            with time_limit(10.0):
                time.sleep(0.01)
    time.sleep(0.01)
    with time_limit(0.05):
        pass
    time.sleep(0.1)  # no alarm is left
