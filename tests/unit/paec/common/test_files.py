"""Files are complete or absent, and nothing is left beside them."""

from __future__ import annotations

import json
import os

import pytest

from recipe.paec.common.files import replace_file, write_json


@pytest.mark.parametrize("sync", [False, True])
def test_text_and_bytes(tmp_path, sync):
    path = tmp_path / "a"
    replace_file(path, "é\n", sync=sync)
    assert path.read_bytes() == b"\xc3\xa9\n"
    replace_file(path, b"\x00\xff", sync=sync)
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failed_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        replace_file(path, "new")
    assert path.read_text() == "old"


def test_json_has_sorted_keys_and_one_line_for_each(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1], "a": None})
    text = (tmp_path / "a.json").read_text()
    assert text.splitlines()[:2] == ["{", ' "a": null,'] and text.endswith("}\n")
    assert json.loads(text) == {"a": None, "b": [1]}
