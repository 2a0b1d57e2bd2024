"""`python -m recipe.paec.train --check` in this process: what it says, and with which exit code."""

from __future__ import annotations

import signal
import sys

from recipe.paec.train import command as train_command


def exit_code(monkeypatch, *overrides: str) -> int:
    """Of `python -m recipe.paec.train --check`, in this process."""
    monkeypatch.setattr(sys, "argv", ["train", "--check", *overrides])
    before = signal.getsignal(signal.SIGTERM)
    try:
        return train_command.main()
    except SystemExit as ended:
        return ended.code
    finally:
        signal.signal(signal.SIGTERM, before)


def check(monkeypatch, capsys, *overrides: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the same."""
    code = exit_code(monkeypatch, *overrides)
    said = capsys.readouterr()
    return code, said.out, said.err
