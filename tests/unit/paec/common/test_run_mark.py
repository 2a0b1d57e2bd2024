"""The name of a job that is unique on a host."""

from __future__ import annotations

from recipe.paec.common.run_mark import RUN_VARIABLE, unique_job


def test_two_runs_with_one_job_id_have_different_names(monkeypatch):
    names = []
    for mark in ("a1", "b2"):
        monkeypatch.setenv(RUN_VARIABLE, mark)
        names.append(unique_job("01000000"))
    assert names == ["01000000-a1", "01000000-b2"]


def test_the_mark_is_added_once(monkeypatch):
    monkeypatch.setenv(RUN_VARIABLE, "a1")
    assert unique_job(unique_job("01000000")) == "01000000-a1"
