"""The display is for terminals, and a pipe or a file has plain lines; both by their text."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest
from omegaconf import DictConfig, OmegaConf
from report_runs import record
from rich.console import Console
from terminals import ROOT, in_terminal

from recipe.paec.train import display
from recipe.paec.train.display import PlainLines, TerminalDisplay, body, duration, head, numbers_of, shown_in, time_left


def text_of(renderable, width: int = 110) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


RECORDS = [
    record(step, **{"perf/total_num_tokens": 3000, "perf/time_per_step": 1.5} if step else {}) for step in range(5)
]


def config_of(total: int) -> DictConfig:
    """The part of a run's configuration that its display reads."""
    return OmegaConf.create({"run": {"name": "x"}, "trainer": {"total_training_steps": total}})


def test_the_first_line():
    (line,) = text_of(head("tiny_cpu-paec", 8, RECORDS, "rollout of step 5, 3 s"))
    assert line.startswith("tiny_cpu-paec  step 4/8  ")
    assert line.endswith("  52 s left  rollout of step 5, 3 s")  # 4 x (10 s + 3 s of validation)
    (line,) = text_of(head("x", 8, [], "starting of step 0, 1 s"))
    assert "step 0/8" in line and "left" not in line


def test_the_numbers():
    assert numbers_of(RECORDS) == [
        [("reward", "0.250"), ("length", "24.0"), ("truncated", "6.2%"), ("tokens/s", "2000")],
        [("entropy", "0.4375"), ("Hbar", "0.5375"), ("floor", "0.4800"), ("anchor", "0.6000")],
        [("host memory", "7.5 GiB"), ("reasoning_gym/countdown/avg@4 of step 4", "0.375")],
    ]
    assert numbers_of(RECORDS[:4])[2][1] == ("reasoning_gym/countdown/avg@4 of step 0", "0.250")
    assert numbers_of([]) == []


def test_a_device_has_memory_of_its_own():
    on_gpu = [*RECORDS[:4], RECORDS[4] | {"actor/perf/max_memory_allocated_gb": 21.25}]
    assert numbers_of(on_gpu)[2][1] == ("device memory", "21.2 GiB")


def test_the_curve_and_the_warnings():
    lines = text_of(body(RECORDS, ["step 4: Hbar is low: do something"], {}))
    assert lines[0] == "reward 0.250  length 24.0  truncated 6.2%  tokens/s 2000"
    assert lines[3] == "* token entropy (nats)"
    assert lines[4] == "0.4844 |*" and lines[8] == "0.4375 |   *"
    assert lines[11] == "- floor, o Hbar (nats)", "far above token entropy, so drawn by itself"
    assert lines[12] == "0.5844 |o" and lines[16] == "0.4800 |----"
    assert lines[-1] == "warning: step 4: Hbar is low: do something"
    assert all(len(line) <= 40 for line in text_of(body(RECORDS, [], {}), width=40))
    assert text_of(body([], [], {})) == []
    normalised = text_of(body(RECORDS, [], {"method": {"entropy": "normalized"}}))
    assert normalised[3] == "* token entropy (nats)" and normalised[11] == "- floor, o Hbar"


def test_the_time_that_is_left():
    assert time_left([], 8) is None and time_left(RECORDS[:1], 8) is None
    assert time_left(RECORDS[1:4], 8) == 13.0 * 5
    slow = [{"step": step, "timing_s/step": 100.0 if step < 20 else 1.0} for step in range(1, 41)]
    assert time_left([{"step": 1, "timing_s/step": 9.0}, {"step": 2, "timing_s/step": 2.0}], 5) == 2.0 * 3
    assert time_left(slow, 50) == pytest.approx((1.0 * 20) / 20 * 10), "only the last twenty steps count"


def test_durations():
    assert [duration(s) for s in (4.6, 99, 100, 5940, 6000, 90000)] == [
        *("5 s", "99 s", "2 min", "99 min", "1 h 40 min", "25 h 0 min"),
    ]


class Stream(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, terminal: bool):
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "term", "kind"),
    [
        (True, "xterm", TerminalDisplay),
        (True, "dumb", PlainLines),
        (True, "", PlainLines),
        (False, "xterm", PlainLines),
    ],
)
def test_where_it_is_drawn(monkeypatch, terminal, term, kind):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich would obey
    assert isinstance(shown_in(Stream(terminal), config_of(8), []), kind)


def test_plain_lines(capsys):
    with PlainLines(8) as shown:
        shown.stage("rollout", 1, 12.3, training=False)
        shown.record(RECORDS[1])
        shown.stage("rollout", 2, 15.0, training=True)
        shown.warn("step 1: careful")
        shown.refresh(["step 1: careful"])
    first, step, warning = capsys.readouterr().out.splitlines()
    assert first == "[   12 s] rollout" and warning == "warning: step 1: careful"
    assert step.startswith("step    1/8  reward 0.062  entropy 0.4844  Hbar 0.5844")
    assert step.endswith("  91 s left")  # 7 x (10 s + 3 s of validation)


def test_plain_lines_know_the_steps_of_earlier_starts(capsys):
    earlier = [RECORDS[1], {**RECORDS[2], "timing_s/step": 150.0, "timing_s/testing": 30.0}]
    shown = shown_in(Stream(False), config_of(6), earlier)
    shown.record({**RECORDS[3], "timing_s/step": 60.0})
    shown.record({**RECORDS[3], "step": 6, "timing_s/step": 60.0})
    third, last = capsys.readouterr().out.splitlines()
    assert third.endswith("  6 min left"), "3 x the mean of 180 and 60 s"
    assert "left" not in last


RUN = """
import signal, sys, time
from pathlib import Path
sys.path[:0] = ["tests/helpers"]
from report_runs import record
from recipe.paec.common.console import say
from recipe.paec.config.resolve import composed
from recipe.paec.run.log import Heartbeat, MetricsFile
from recipe.paec.train import display
from recipe.paec.train.watch import Progress, StopRequest
display.INTERVAL = 0.05
folder = Path(sys.argv[1])
config = composed("experiment=tiny_cpu")
config.run.name, config.run.stall_timeout, config.trainer.total_training_steps = "[shown]", 60.0, 8
progress = Progress(config, folder)
metrics, heartbeat = MetricsFile(folder, lambda record: None), Heartbeat(folder)
with StopRequest(folder, progress) as stop, progress.shown:
    for step in range(9):
        heartbeat.beat("rollout", step)
        values = record(step) | {"reward/mixed_prompts": float(step != 3)}
        metrics.log({key: value for key, value in values.items() if key != "step"}, step)
        for _ in range(4):
            progress.tick()
            time.sleep(0.05)
        if stop.code:
            break
say(f"over with {stop.code}")
"""


def test_a_terminal_has_a_display(tmp_path):
    code, text = in_terminal(RUN, str(tmp_path))
    assert code == 0
    assert "\x1b[" in text and "[shown]" in text and "step 8/8" in text and "o Hbar (nats)" in text
    assert text.count("step    8/8  reward") == 1 and "step    3/8  reward" not in text, "lines of validations stay"
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is back"
    assert "nothing to learn in this step" in " ".join(text.split())
    assert text.rstrip().endswith("over with None")


def test_ctrl_c_in_a_terminal_asks_for_a_checkpoint(tmp_path):
    """The signal arrives while the display is drawn: the sentence is above it, and the step is finished."""
    sent = []

    def press(text: str, child: subprocess.Popen) -> None:
        if "step 2/8" in text and not sent:
            sent.append(child.send_signal(signal.SIGINT))

    code, text = in_terminal(RUN, str(tmp_path), seen=press)
    assert code == 0 and "SIGINT: stopping after this step, with a checkpoint" in text
    assert text.rstrip().endswith("over with 130") and "step 7/8" not in text
    assert text.count("\x1b[?25h") == 1 and not (tmp_path / "stop").exists()


def test_ctrl_c_before_the_first_step_ends_it(tmp_path):
    sent = []

    def press(text: str, child: subprocess.Popen) -> None:
        if "step 0/8" in text and not sent:
            sent.append(child.send_signal(signal.SIGINT))

    code, text = in_terminal(RUN.replace("range(9)", "[0] * 1000"), str(tmp_path), seen=press)
    assert code != 0 and "KeyboardInterrupt" in text and text.count("\x1b[?25h") == 1


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_pipe_and_a_dumb_terminal_have_plain_lines(tmp_path, term):
    if term == "dumb":
        code, text = in_terminal(RUN, str(tmp_path), term=term)
        text = text.replace("\r\n", "\n")
    else:
        env = {**os.environ, "TERM": term, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path)], cwd=ROOT, env=env, capture_output=True, text=True
        )
        code, text = done.returncode, done.stdout + done.stderr
    assert code == 0 and "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert lines[0] == "[    0 s] rollout" and lines[-1] == "over with None"
    steps = [line[:9] for line in lines if line.startswith("step ")]
    assert steps == [f"step    {step}" for step in range(9)]
    (warning,) = (line for line in lines if line.startswith("warning: "))
    assert warning.startswith("warning: step 3: all responses to each prompt have the same score")


def test_it_is_drawn_once_a_second(monkeypatch):
    """Ticks come twice a second and more; only something new is drawn at once."""
    drawn, now = [], [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    shown = TerminalDisplay(Stream(True), config_of(8), RECORDS[:2])
    monkeypatch.setattr(shown._live, "update", lambda renderable, refresh: drawn.append(now[0]))
    for _ in range(8):
        shown.refresh([])
        now[0] += 0.25
    assert drawn == [100.0, 101.0]
    shown.record(RECORDS[3])
    shown.refresh([])
    assert drawn[2:] == [102.0]
