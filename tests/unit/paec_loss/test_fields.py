"""Fields of a method."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from paec_loss import Method
from paec_loss.fields import below_one, between, check_fields, non_negative, number, positive, share, words
from paec_loss.methods import METHODS


@dataclass(frozen=True)
class Words:
    phrases: tuple[str, ...] = words(("a",), "phrases")


def test_words_are_a_list_of_non_empty_strings():
    config = Words(phrases=["x", "y z"])
    check_fields(config)
    assert config.phrases == ("x", "y z")
    for bad in ("x", 5, ["x", 1], ["x", ""], {"x"}):
        with pytest.raises(ValueError, match="method.phrases=.*must be a list of non-empty strings"):
            check_fields(Words(phrases=bad))


def test_a_word_with_a_colon_is_no_schedule():
    for bad in ("foo: bar", "a:b"):
        with pytest.raises(ValueError) as caught:
            check_fields(Words(phrases=bad))
        assert str(caught.value) == (f"method.phrases={bad!r}: must be a list of non-empty strings; it is the phrases")


@dataclass(frozen=True)
class Optional(Method):
    level: float = positive(None, "level")
    other: float = positive(1.0, "other")


def test_a_number_may_be_none_where_its_default_is():
    assert Optional().level is None and Optional(level=2).level == 2.0
    assert Optional(level="constant:3").at(1).level == 3.0
    with pytest.raises(ValueError, match="method.level=0: must be > 0"):
        Optional(level=0)
    with pytest.raises(ValueError, match="method.other=None: must be a number"):
        Optional(other=None)


@dataclass(frozen=True)
class Plain(Method):
    """Fields without a range."""

    alpha: float = 0.1
    count: int = 3
    flag: bool = False
    label: str = "a"
    bound: float = math.inf
    absent: float = None
    other: int | None = None
    start: float = 1


def test_plain_fields_take_values_of_their_annotation():
    plain = Plain(alpha=2, count=4, flag=True, label="b:c", bound=math.inf, other="x", start=0.5)
    assert (plain.alpha, plain.count, plain.flag, plain.label, plain.other) == (2.0, 4, True, "b:c", "x")
    assert type(plain.alpha) is float and plain.bound == math.inf and plain.absent is None and plain.start == 0.5
    assert Plain(start="linear:0:1:2").at(2).start == 0.5


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("alpha", "abc", "must be a number"),
        ("alpha", True, "must be a number"),
        ("alpha", None, "must be a number"),
        ("bound", "x", "must be a number"),
        ("absent", [1], "must be a number"),
        ("count", 2.0, "must be an integer"),
        ("count", False, "must be an integer"),
        ("count", "linear:0:1:2", "must be an integer"),
        ("flag", 1, "must be true or false"),
        ("label", 3, "must be text"),
    ],
)
def test_a_plain_field_of_another_type(name, value, wanted):
    with pytest.raises(ValueError) as caught:
        Plain(**{name: value})
    assert str(caught.value) == f"method.{name}={value!r}: {wanted}"


@pytest.mark.parametrize("kind, name", [(METHODS["paec"], "lambda_low"), (Plain, "alpha"), (Plain, "start")])
def test_an_integer_beyond_every_float(kind, name):
    with pytest.raises(ValueError) as caught:
        kind(**{name: 10**400})
    assert str(caught.value) == f"method.{name}: too large for a float: give a smaller number"


@dataclass(frozen=True)
class Ranged(Method):
    """A field of every range."""

    any: float = number(0.5, "number")
    above: float = positive(0.5, "number")
    least: float = non_negative(0.5, "number")
    part: float = share(0.5, "number")
    below: float = below_one(0.5, "number")
    within: float = between(0, 1, 0.5, "number")
    open: float = between(0.5, math.inf, 0.5, "number")


@pytest.mark.parametrize("name", ["any", "above", "least", "part", "below", "within", "open"])
def test_only_a_range_up_to_inf_takes_inf(name):
    assert getattr(Ranged(**{name: 0.75}), name) == 0.75
    for value in (math.nan, -math.inf, *([] if name == "open" else [math.inf])):
        with pytest.raises(ValueError, match=f"method.{name}={value}: must be .*; it is the number"):
            Ranged(**{name: value})
    assert Ranged(open=math.inf).open == math.inf
