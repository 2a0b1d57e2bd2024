"""What commands print."""

from __future__ import annotations

import errno

import pytest

from recipe.paec.common.console import complain, complain_of_files


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
