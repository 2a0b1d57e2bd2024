"""The first key in which two records differ."""

from __future__ import annotations

import pytest

from recipe.paec.common.records import first_difference


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
