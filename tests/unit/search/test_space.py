"""Knobs and the settings made of them: what a method accepts, and one sentence for what it does not."""

from __future__ import annotations

import math

import pytest

from paec_loss import MethodStack
from paec_loss.methods import METHODS
from recipe.paec.common.errors import UserError
from recipe.search.space import Choices, Range, knob_of, overrides_of, space_of, text_of


def space(method: str, **knobs):
    return space_of(
        method, {f: knob_of(f"methods.{method}.{f}", k) for f, k in knobs.items()}, MethodStack([METHODS[method]()])
    )


def test_lists_and_ranges():
    assert knob_of("x", [2, 0.5, True, None, "exact"]) == Choices((2, 0.5, True, None, "exact"))
    assert knob_of("x", {"low": 1, "high": 2}) == Range(1.0, 2.0, log=False, whole=False)
    whole = knob_of("x", {"low": 1, "high": 4.0, "log": True, "int": True})
    assert whole == Range(1, 4, log=True, whole=True) and whole.count() == 4 and whole.ends() == (1, 4)
    assert whole.holds(2) and not whole.holds(2.5) and not whole.holds(5) and not whole.holds(True)


@pytest.mark.parametrize(
    "written, sentence",
    [
        (0.5, "x=0.5: must be a list of values, or a range"),
        ("0.5", "x=0.5: must be a list of values, or a range"),
        ([], "x: the list is empty"),
        ([0.5, 0, 0], "x: 0 occurs twice: leave one out"),
        ([[1]], "x: [1] cannot be tried: a value is a number, text, true, false or null"),
        (["a b"], "x: 'a b' cannot be tried: text must not have spaces"),
        (["linear:0.1:0:9"], "x: 'linear:0.1:0:9' cannot be tried: text must not have spaces"),
        ([math.inf], "x: inf cannot be tried: a number must be finite"),
        ({"low": 1}, "x.high=None: must be a number"),
        ({"low": "a", "high": 2}, "x.low=a: must be a number"),
        ({"low": 2, "high": 2}, "x: low=2 must be below high=2"),
        ({"low": 3, "high": 2}, "x: low=3 must be below high=2"),
        ({"low": 0, "high": 2, "log": True}, "x.low=0: must be > 0 with log: true"),
        ({"low": 0.5, "high": 2, "int": True}, "x.low=0.5: must be an integer, or leave int: true out"),
        ({"low": 1, "high": 2, "log": 1}, "x.log=1: must be true or false"),
        ({"low": 1, "high": 2, "step": 1}, "x.step: a range has only low, high, log and int"),
    ],
)
def test_a_bad_knob_is_one_sentence(written, sentence):
    with pytest.raises(UserError) as caught:
        knob_of("x", written)
    assert str(caught.value).startswith(sentence) and len(caught.value.errors) == 1


def test_the_default_is_in_every_space():
    with_it, without = space("paec", rho_min=[0.9, 0.8]), space("paec", rho_min=[0.9, 0.7])
    assert with_it.default == without.default == {"rho_min": 0.8}
    assert with_it.knobs["rho_min"].values == (0.9, 0.8) and without.knobs["rho_min"].values == (0.8, 0.9, 0.7)
    assert (with_it.count(), without.count(), space("none").count()) == (2, 3, 1)
    assert space("paec", rho_min={"low": 0.1, "high": 0.9}).count() == math.inf
    assert with_it.grid() == [{"rho_min": 0.8}, {"rho_min": 0.9}] and space("none").grid() == [{}]


def test_values_are_those_of_the_field():
    values = space("paec", lambda_low=[1, 2]).knobs["lambda_low"].values
    assert values == (1.0, 2.0) and all(isinstance(value, float) for value in values)


@pytest.mark.parametrize(
    "method, knobs, sentence",
    [
        ("paec", {"rho_mn": [0.5]}, "methods.paec.rho_mn: paec has no such field: did you mean rho_min? (its fields: "),
        ("none", {"rho": [0.5]}, "methods.none.rho: none has no fields: write none: {}"),
        ("paec", {"rho": [0.5, 2]}, "methods.paec: method.rho=2: must be "),
        ("paec", {"rho_min": ["high"]}, "methods.paec: method.rho_min='high': must be a number, not str"),
        ("paec", {"mask": ["ramp", "hart"]}, "methods.paec: method.mask='hart': must be one of "),
        ("clip_cov", {"ratio": {"low": 0.0001, "high": 2}}, "methods.clip_cov: method.ratio=2.0: must be "),
        ("paec", {"anchor_steps": {"low": 1, "high": 9}}, "methods.paec: method.anchor_steps=1.0: must be an integer"),
        (
            "paec",
            {"rho_min": {"low": 0.1, "high": 0.5}},
            "methods.paec.rho_min: its default 0.8 is not in the range from 0.1 to 0.5, and the default is always",
        ),
        ("paec", {"mask": {"low": 0, "high": 1}}, "methods.paec: method.mask=0.0: must be one of "),
    ],
)
def test_what_a_method_does_not_accept_is_refused(method, knobs, sentence):
    with pytest.raises(UserError) as caught:
        space(method, **knobs)
    assert caught.value.errors[0].startswith(sentence)


def test_values_that_contradict_each_other_are_refused():
    """Each is fine beside the other's default; the method compares the two."""
    assert space("clip_cov", lower=[1.0, 4.0]).count() == 2 and space("clip_cov", upper=[5.0, 3.0]).count() == 2
    with pytest.raises(UserError) as caught:
        space("clip_cov", lower=[1.0, 4.0], upper=[5.0, 3.0])
    assert str(caught.value) == (
        "methods.clip_cov: lower=4.0, upper=3.0: method.lower=4.0: must be below method.upper=3.0"
    )


def test_overrides_and_text():
    params = {"rho_min": 0.7, "mask": "ramp", "flag": True, "nothing": None, "small": 1e-05}
    assert overrides_of(params) == [
        "method.rho_min=0.7",
        "method.mask=ramp",
        "method.flag=true",
        "method.nothing=null",
        "method.small=1e-05",
    ]
    assert text_of({"rho_min": 0.7, "beta": 0.3}) == "rho_min=0.7, beta=0.3" and text_of({}) == "no knob"
