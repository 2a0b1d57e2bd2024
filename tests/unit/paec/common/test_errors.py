"""The error a user can act on."""

from __future__ import annotations

from recipe.paec.common.errors import Stalled, UserError


def test_sentences_are_kept_apart_and_shown_below_each_other():
    error = UserError("a.b=1: must be > 1", "c.d: is missing")
    assert error.errors == ["a.b=1: must be > 1", "c.d: is missing"]
    assert str(error) == "a.b=1: must be > 1\nc.d: is missing"
    assert UserError().errors == [] and str(UserError()) == ""


def test_a_hang_is_caught_like_any_other_error_of_the_user():
    try:
        raise Stalled("no heartbeat for 5 s")
    except UserError as error:
        assert error.errors == ["no heartbeat for 5 s"]
