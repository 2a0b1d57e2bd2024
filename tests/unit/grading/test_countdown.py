"""Countdown is scored behind its filter."""

from __future__ import annotations

import json

from recipe.grading import countdown


def test_countdown_is_scored_behind_its_filter(pool):
    truth = json.dumps({"metadata": {"numbers": [7, 5, 1], "target": 2}})
    verdict = pool.judge(countdown.DATA_SOURCE, "7-5=2,1*2=2;1*(7-5)", truth)
    assert (verdict.correct, verdict.strict, verdict.answer) == (True, True, "1*(7-5)")
    assert pool.judge(countdown.DATA_SOURCE, ";9**9**9", truth).status == "unparsable"
