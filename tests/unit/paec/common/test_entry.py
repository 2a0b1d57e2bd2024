"""The ends of a command: exit codes, a reader that has gone away, Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from recipe.paec.common.repository import REPOSITORY

START = "import sys, signal, argparse; from recipe.paec.common.entry import ended\n"


def ends(body: str, gone: str = "") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; `gone`: the one whose reader has gone away."""
    return run([sys.executable, "-c", f"{START}def main():\n    {body}\nsys.exit(ended(main))"], gone)


def run(command: list[str], gone: str = "") -> tuple[int, str, str]:
    """The same of any command line."""
    read, write = os.pipe()
    os.close(read)
    # Where nothing is buffered, argparse itself hears of the closed pipe, and says nothing.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | ({gone: write} if gone else {})
    try:
        done = subprocess.run(command, text=True, cwd=REPOSITORY, env=buffered, check=False, **streams)
    finally:
        os.close(write)
    return done.returncode, done.stdout or "", done.stderr or ""


@pytest.mark.parametrize(
    "body, code, said",
    [
        ("print('a')", 0, ("a\n", "")),
        ("print('a'); return 3", 3, ("a\n", "")),
        ("print('a'); sys.exit(2)", 2, ("a\n", "")),
        ("print('a'); signal.raise_signal(signal.SIGINT)", 130, ("a\n", "interrupted\n")),
    ],
)
def test_exit_codes(body, code, said):
    assert ends(body) == (code, *said)


@pytest.mark.parametrize(
    "body",
    [
        "print('a')",
        "print('a', flush=True)",
        "print('a' * 2**20)",
        "print('a'); return 2",
        "argparse.ArgumentParser().parse_args(['--help'])",
    ],
)
def test_a_reader_that_has_gone_away(body):
    """As of `paec ... | true`: no traceback, no error at the interpreter's end, and the exit code of SIGPIPE."""
    assert ends(body, "stdout") == (141, "", "")


def test_nobody_reads_the_errors():
    assert ends("print('a', flush=True); print('b', file=sys.stderr, flush=True)", "stderr") == (141, "a\n", "")


def test_another_broken_pipe_is_an_error():
    code, _, err = ends("raise BrokenPipeError('of a child')")
    assert code == 1 and err.endswith("BrokenPipeError: of a child\n")


@pytest.mark.parametrize(
    "line",
    [
        ["recipe.paec", "--help"],
        ["recipe.paec.train", "--check", "experiment=tiny_cpu"],
        ["recipe.paec.train", "--cfg", "job"],
    ],
)
def test_commands_without_a_reader(line):
    assert run([sys.executable, "-m", *line], "stdout") == (141, "", "")
