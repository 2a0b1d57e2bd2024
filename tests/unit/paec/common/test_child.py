"""A process that is run to its end: its environment, its output, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager

import pytest
from omegaconf import OmegaConf
from processes import gone

from recipe.paec.common.child import LastSign, StopSignals, run_on_ray
from recipe.paec.common.errors import UserError

PROCESS = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(os.environ["OWN"], sys.argv[1], "RAY_AUTH_TOKEN_PATH" in os.environ, os.environ.get("LD_PRELOAD"), child.pid)
sys.stdout.flush()
time.sleep(float(os.environ["SECONDS"]))
sys.exit(5)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run PROCESS as a module; its end, and the words that it printed."""
    (tmp_path / "a_process.py").write_text(PROCESS)
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    log = tmp_path / "a.log"
    log.write_text("of an earlier start\n")

    def run(tick=lambda: None, around=None, seconds=0, **changed):
        env = {"OWN": "this", "SECONDS": str(seconds)}
        cluster = OmegaConf.create(
            {"platform": "cpu", "ray_address": None, "fork_workers": False, "env": env, **changed}
        )
        ended = run_on_ray("a_process", tmp_path / "job.json", cluster, tmp_path, log, tick, around, grace=0.5)
        return ended, ended.output.split()

    run.log = log
    return run


def test_what_it_gets_and_what_is_said_of_it(run, tmp_path):
    ended, (own, argument, token, preload, child) = run()
    assert (ended.code, own, argument, token, preload) == (5, "this", str(tmp_path / "job.json"), "True", "None")
    assert ended.peak_memory > 0
    assert gone(int(child))
    assert not (tmp_path / ".ray_token").exists()


def test_forked_workers_need_torchs_openmp(run):
    assert "libgomp" in run(fork_workers=True)[1][3]
    assert run(fork_workers=True, ray_address="127.0.0.1:1")[1][3] == "None"  # that Ray is not of this run


def test_what_is_around_it(run):
    seen = []

    @contextmanager
    def around():
        seen.append("entered")
        yield
        seen.append("left")

    run(lambda: seen.append("tick"), around())
    assert seen[0] == "entered" and seen[-1] == "left" and set(seen[1:-1]) == {"tick"}


def test_a_tick_can_end_it(run, tmp_path):
    def tick():
        if "this" in run.log.read_text():
            raise UserError("it is enough")

    with pytest.raises(UserError, match="it is enough"):
        run(tick, seconds=600)
    child = int(run.log.read_text().split()[-1])
    assert gone(child) and not (tmp_path / ".ray_token").exists()


def test_signals_go_to_the_handler_until_they_are_restored():
    got = []
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(lambda number, _: got.append(number)) as signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert got == [signal.SIGTERM, signal.SIGINT] and signals.before[signal.SIGTERM] is before
        signals.restore()
        assert signal.getsignal(signal.SIGTERM) is before and signals.before == {}
    with StopSignals(lambda *_: None):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_silence_is_counted_from_the_last_sign(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sign = LastSign()
    now[0] = 103.0
    assert sign.silence == 3.0
    sign.seen()
    assert sign.silence == 0.0
