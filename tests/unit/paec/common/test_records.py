"""The first key in which two records differ, and the lines of a metrics file."""

from __future__ import annotations

import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.common.records import first_difference, read_metrics


@pytest.mark.parametrize(
    ("recorded", "wanted", "found"),
    [
        ({}, {}, None),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, None),
        ({"b": 1, "a": 1}, {"b": 2, "a": 3}, ("a", 1, 3)),
        ({"a": 1, "b": 1}, {"a": 1}, ("b", 1, None)),
        ({"a": 1}, {"a": 1, "b": 0}, ("b", None, 0)),
        ({"a": None}, {}, None),
    ],
)
def test_by_hand(recorded, wanted, found):
    assert first_difference(recorded, wanted) == found


@pytest.mark.parametrize(("line", "problem"), [('{"step": 2', "Expecting ',' delimiter"), ("5", "not a JSON object")])
def test_a_damaged_line_is_named(tmp_path, line, problem):
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 1}}\n\n{{"step": 2}}\n{line}')
    assert read_metrics(file) == [{"step": 1}, {"step": 2}], "the last line of a killed run is left out"
    file.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(UserError) as raised:
        read_metrics(file)
    assert str(raised.value).startswith(f"{file}, line 2: is damaged ({problem}")
    assert read_metrics(tmp_path / "none") == []
