"""What commands print."""

from __future__ import annotations

import argparse
import errno
import sys

import pytest

from recipe.paec.common.console import complain, complain_of_files, parsed


def test_errors_hide_secrets(planted, capsys):
    complain([f"401 for https://user:{planted['HF_TOKEN']}@host/"])
    assert capsys.readouterr().err == "error: 401 for https://user:<hidden>@host/\n"


def test_a_file_system_error_that_is_not_a_bug_has_its_remedy(capsys):
    assert complain_of_files(OSError(errno.ENOSPC, "No space left", "/a/b"), "free some space") == 2
    assert capsys.readouterr().err == "error: /a/b: No space left: free some space\n"
    assert complain_of_files(OSError(errno.EROFS, "Read-only"), "choose another", "/c") == 2
    assert capsys.readouterr().err == "error: /c: Read-only: choose another\n"
    assert complain_of_files(OSError(errno.ENOLCK, "No locks available"), "choose another", "/c") == 2
    assert capsys.readouterr().err == "error: /c: No locks available: choose another\n"
    bug = OSError(errno.EBADF, "Bad file descriptor")
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        complain_of_files(bug, "free some space")
    assert caught.value is bug and capsys.readouterr().err == ""


def test_the_options_of_a_command_line(monkeypatch, capsys):
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("run")
    assert parsed(parser, "usage: paec watch RUN", ["a"]).run == "a"
    monkeypatch.setattr(sys, "argv", ["paec watch", "b"])
    assert parsed(parser, "usage: paec watch RUN", None).run == "b"
    assert parsed(parser, "\nusage: paec watch RUN\n", ["--help"]) is None
    assert capsys.readouterr().out == "usage: paec watch RUN\n"
