"""The watch asks Ray about dead actors until it is stopped; with real ones: tests/integration/test_faults.py."""

from __future__ import annotations

import json
import threading

import pytest

from recipe.paec.driver import actor_watch
from recipe.paec.run.log import FAILURE_FILE


@pytest.fixture
def asked(monkeypatch):
    """How often Ray was asked, and what it answers."""
    asked = {"times": 0, "answer": [], "event": threading.Event()}

    def dead_actors():
        asked["times"] += 1
        asked["event"].set()
        return asked["answer"]

    monkeypatch.setattr(actor_watch, "dead_actors", dead_actors)
    monkeypatch.setattr(actor_watch, "INTERVAL", 0.01)
    return asked


def test_after_its_end_ray_is_not_asked(asked, tmp_path):
    watch = actor_watch.ActorWatch(tmp_path)
    watch.start()
    assert asked["event"].wait(10)
    watch.stop()
    assert not watch.is_alive()
    times = asked["times"]
    assert not threading.Event().wait(0.1) and asked["times"] == times and not (tmp_path / FAILURE_FILE).exists()


def test_one_that_never_ran_can_be_stopped(asked, tmp_path):
    actor_watch.ActorWatch(tmp_path).stop()
    assert asked["times"] == 0


@pytest.fixture
def ended(monkeypatch):
    """Set, with the exit code, when the watch ends the process."""
    ended = threading.Event()

    def leave(code):
        ended.code = code
        ended.set()
        raise SystemExit  # of the thread

    monkeypatch.setattr(actor_watch.os, "_exit", leave)
    return ended


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_actor_ends_the_process_with_a_reason(asked, ended, tmp_path):
    asked["answer"] = ["WorkerDict has died", "RewardLoopWorker has died"]
    watch = actor_watch.ActorWatch(tmp_path)
    watch.start()
    assert ended.wait(10) and ended.code == 1
    watch.stop()
    failure = json.loads((tmp_path / FAILURE_FILE).read_text(encoding="utf-8"))
    assert failure == {"type": "ActorDied", "message": "WorkerDict has died; RewardLoopWorker has died"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_a_place_for_the_reason_it_ends_the_process_all_the_same(asked, ended, tmp_path):
    asked["answer"] = ["WorkerDict has died"]
    watch = actor_watch.ActorWatch(tmp_path / "deleted")
    watch.start()
    assert ended.wait(10) and ended.code == 1
    watch.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_ray_is_asked_again_when_it_could_not_answer(asked, ended, tmp_path, monkeypatch, capfd):
    answers = iter([TimeoutError("GCS is busy"), TimeoutError("GCS is busy"), ["WorkerDict has died"]])

    def dead_actors():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(actor_watch, "dead_actors", dead_actors)
    watch = actor_watch.ActorWatch(tmp_path)
    watch.start()
    assert ended.wait(10) and ended.code == 1
    watch.stop()
    assert capfd.readouterr().err.count("GCS is busy") == 1, "one trace of it in the log"
