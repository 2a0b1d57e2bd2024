"""The YAML of a file of jobs: every key once."""

from __future__ import annotations

import pytest

from recipe.lab.job_file import read
from recipe.paec.common.errors import UserError


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("jobs:\n  a: [method=none]\n  a: [method=paec]\n", "line 3: a is written twice: name every key once"),
        ("jobs:\n  1: []\n  '1': []\n", "line 3: 1 is written twice: name every key once"),
        ("all: [steps=1]\njobs: {a: []}\nall: [steps=2]\n", "line 3: all is written twice: name every key once"),
        ("jobs: {a: []", "line 1: is not YAML (expected ',' or '}', but got '<stream end>'): check brackets, quotes"),
    ],
)
def test_what_is_refused_is_named_with_the_line(tmp_path, text, sentence):
    file = tmp_path / "jobs.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}, {sentence}")


def test_the_content(tmp_path):
    (tmp_path / "jobs.yaml").write_text("all: [steps=1]\nseeds: [1, 2]\njobs:\n  a: [method=none]\n  b:\n")
    content = {"all": ["steps=1"], "seeds": [1, 2], "jobs": {"a": ["method=none"], "b": None}}
    assert read(tmp_path / "jobs.yaml") == content
