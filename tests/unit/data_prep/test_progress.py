"""Progress is a bar on a terminal, and plain lines every few seconds in a log."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest
from terminals import ROOT, in_terminal

from data_prep import progress
from data_prep.progress import with_progress
from recipe.paec.common.process_tree import ProcessTree


class Clock:
    """time.monotonic, by hand."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_one_line_every_few_seconds(clock, capsys):
    """1,800 items of an eighth of a second, as in a warm start: 225 s are 45 lines."""
    with with_progress(range(1800), label="warm start") as bar:
        for step in bar:
            clock.now += 0.125
            bar.set_postfix(loss=f"{step / 100:.2f}", refresh=False)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and "\r" not in err and "\x1b" not in err
    assert len(lines) == 45
    assert lines[0] == "warm start:   2% 40/1800 [00:05<03:40,  8.00it/s, loss=0.39]"
    assert lines[-1] == "warm start: 100% 1800/1800 [03:45<00:00,  8.00it/s, loss=17.99]"


def test_quick_work_prints_nothing(clock, capsys):
    assert [*with_progress("abc", label="quick")] == ["a", "b", "c"]
    with with_progress(total=3, label="quick") as bar:
        clock.now += 4.9
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_a_counter(clock, capsys):
    with with_progress(total=4, label="problems") as bar:
        clock.now += 6
        bar.update()
        bar.update(2)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("problems:  25% 1/4 [00:06<") and last.startswith("problems:  75% 3/4 [00:06<")


def test_what_has_no_length(clock, capsys):
    for _ in with_progress(iter("ab"), label="reading", unit=" rows"):
        clock.now += 5
    assert capsys.readouterr().err.splitlines() == [
        "reading: 1 rows [00:05,  5.00s/ rows]",
        "reading: 2 rows [00:10,  5.00s/ rows]",
    ]


@pytest.mark.parametrize("ends", [True, False])
def test_the_last_line_is_where_it_ended(clock, capsys, ends):
    def work():
        for item in with_progress(range(4), label="work"):
            if item == 2:
                if not ends:
                    raise KeyError
                return
            clock.now += 5

    if ends:
        work()
    else:
        pytest.raises(KeyError, work)
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["1/4", "2/4"]


def test_not_shown(clock, capsys):
    for _ in with_progress(range(3), label="hidden", show=False):
        clock.now += 10
    assert capsys.readouterr().err == ""


LOOP = """
import sys, time
from data_prep import progress
progress.INTERVAL = 0.2
for _ in progress.with_progress(range(100), label="loop"):
    time.sleep(0.01)
"""


def test_a_terminal_has_a_bar_and_a_pipe_has_lines():
    pipe = subprocess.run([sys.executable, "-c", LOOP], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert b"\r" not in pipe.stderr and 3 <= pipe.stderr.count(b"\n") <= 6, pipe.stderr
    code, shown = in_terminal(LOOP, columns=80)
    assert code == 0
    assert shown.count("\r") > 6 and "100%|" in shown, shown


def test_a_command_with_a_log_draws_no_bars(tmp_path):
    """Not its own, not of the libraries it uses, not where its children draw them."""
    draw = "from tqdm import tqdm\nfor _ in tqdm(range(3), desc='bar'): pass\n"
    nested = f"import subprocess, sys\n{draw}subprocess.run([sys.executable, '-c', {draw!r}], check=True)\nprint('end')"
    tree = ProcessTree([sys.executable, "-c", nested], tmp_path / "log", dict(os.environ))
    assert tree.wait(lambda: None) == 0
    assert (tmp_path / "log").read_text() == "end\n"


def test_the_libraries_draw_no_bars():
    import datasets
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    try:
        progress.quiet_hub()
        progress.quiet_transformers()
        assert not logging.is_progress_bar_enabled()
        assert not datasets.utils.is_progress_bar_enabled() and are_progress_bars_disabled()
    finally:
        logging.enable_progress_bar()
        datasets.enable_progress_bars()
        enable_progress_bars()


@pytest.mark.parametrize("folder", ["data_prep", "recipe", "benchmarks", "paec_loss"])
def test_one_way_to_show_progress(folder):
    """Whoever imported tqdm or rich would draw bars into logs."""
    drawing = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in ("tqdm", "rich") for name in names):
                drawing.append(path.relative_to(ROOT).as_posix())
        assert '"\\r' not in path.read_text(encoding="utf-8").replace('r"\\r', ""), path
    # The second is the display of a run, which checks for a terminal too (tests/unit/paec/train/test_display.py).
    allowed = {"data_prep": ["data_prep/progress.py"], "recipe": ["recipe/paec/train/display.py"]}
    assert list(dict.fromkeys(drawing)) == allowed.get(folder, [])
