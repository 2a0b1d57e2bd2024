"""What commands print."""

from __future__ import annotations

from recipe.paec.common.console import complain


def test_errors_hide_secrets(planted, capsys):
    complain([f"401 for https://user:{planted['HF_TOKEN']}@host/"])
    assert capsys.readouterr().err == "error: 401 for https://user:<hidden>@host/\n"
