"""Records that must agree: what a run, an evaluation or a scored file was made with."""

from __future__ import annotations

from typing import Any


def first_difference(recorded: dict[str, Any], wanted: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key, in alphabetical order, in which two records differ, with both values; None if they agree.

    A key that is missing in one of them counts as None there.
    """
    for key in sorted(recorded.keys() | wanted.keys()):
        if recorded.get(key) != wanted.get(key):
            return key, recorded.get(key), wanted.get(key)
    return None
