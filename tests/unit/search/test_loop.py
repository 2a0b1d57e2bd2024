"""A search from its first setting to its last, with runs that fail."""

from __future__ import annotations

import pytest
from search_cases import NEEDS_OPTUNA, Made, request

from recipe.search.loop import result_of, search, spaces_of, total
from recipe.search.studies import Setting, Studies

pytest.importorskip("optuna", reason=NEEDS_OPTUNA)


def test_a_run_that_fails_stops_only_its_own_setting(tmp_path, capsys):
    asked = request(methods={"paec": {"rho_min": [0.7, 0.8, 0.9]}, "siren": {"lambda_low": [0.005, 0.05, 0.5]}})
    runner, seen = Made(fails=("paec-1",)), []
    studies = Studies(tmp_path, asked, spaces_of(asked, runner))
    ended = search(asked, studies, runner, lambda failures: seen.append(dict(failures)))
    assert ended.failures == {"paec-1": "paec-1: no room on the disk"} and ended.code is None
    assert [one.label for one in studies.settings("paec") if one.result is None] == ["paec-1"]
    assert all(one.result is not None for one in studies.settings("siren"))
    assert seen[0] == {} and seen[-1] == ended.failures and len(seen) == 1 + 5 + 1
    assert "paec-0 (rho_min=0.8): objective 0.81150\n" in capsys.readouterr().out
    again = Made()
    assert search(asked, studies, again, lambda failures: None).failures == {} and again.ran == ["paec-1"]


def test_a_run_without_its_metric_is_a_failure(tmp_path):
    asked = request(objective={"take": "last", "of": "pass@4"})
    studies = Studies(tmp_path, asked, spaces_of(asked, runner := Made()))
    ended = search(asked, studies, runner, lambda failures: None)
    assert ended.failures["none-0"] == "none-0: seed 11: the validation of step 0 has no pass@4"
    assert len(ended.failures) == 7 and all(one.result is None for one in studies.settings("none"))


def test_tpe_waits_for_a_setting_that_failed(tmp_path):
    asked = request(sampler={"name": "tpe", "startup": 1}, methods={"paec": {"rho_min": [0.7, 0.8, 0.9]}})
    studies = Studies(tmp_path, asked, spaces_of(asked, runner := Made(fails=("paec-1",))))
    search(asked, studies, runner, lambda failures: None)
    assert runner.ran == ["paec-0", "paec-1"], "the third setting depends on the second"


def test_a_result_is_the_objective_of_each_seed_and_the_sum_of_the_costs():
    setting = Setting("paec", 1, {"rho_min": 0.5}, 1, None)
    found = result_of(request(), Made(), setting)
    assert found["values"] == {11: pytest.approx(0.511), 12: pytest.approx(0.512)}
    assert (found["steps"], found["seconds"], found["cpu_seconds"]) == (8, 16.0, 12.0)
    assert total([{"steps": 1, "seconds": 2.0, "cpu_seconds": None}] * 2) == {
        "steps": 2,
        "seconds": 4.0,
        "cpu_seconds": None,
    }
