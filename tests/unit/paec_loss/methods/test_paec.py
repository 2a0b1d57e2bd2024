"""Every default, every refusal, one sentence each."""

import dataclasses
import math

import pytest

from paec_loss import PAECConfig


def test_defaults():
    assert dataclasses.asdict(PAECConfig()) == {
        "top_p": 0.8,
        "beta": 0.3,
        "rho": 0.8,
        "normalizer": "log_nucleus",
        "competition": "ratio",
        "competition_tau": 1.0,
        "mask": "ramp",
        "mask_width": 0.1,
        "quantile_scope": "response",
        "average": "count",
        "entropy": "full",
        "anchor_steps": 4,
        "rho_min": 0.8,
        "lambda_ent": 0.001,
        "lambda_low": 1.0,
        "penalty": "floor",
        "statistics_from": "step",
    }


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAECConfig().rho = 0.5


REFUSED = [
    ("top_p", 0, "must be in (0, 1]; it is the probability mass that the nucleus holds"),
    ("top_p", 1.01, "must be in (0, 1]; it is the probability mass that the nucleus holds"),
    ("beta", -0.1, "must be in [0, 1]; it is the weight of competition against entropy in the score"),
    ("beta", 1.1, "must be in [0, 1]; it is the weight of competition against entropy in the score"),
    ("rho", 1.5, "must be in [0, 1); it is the quantile of the score above which positions are selected"),
    ("rho", 1, "must be in [0, 1); it is the quantile of the score above which positions are selected"),
    ("competition_tau", 0, "must be > 0; it is the scale in nats of competition=exp_tau"),
    ("mask_width", 0.0, "must be > 0; it is the width in score of the ramp; for a step use mask=hard"),
    ("rho_min", 0, "must be in (0, 1), or 1 with penalty=two_sided; it is the floor as a share of the anchor"),
    ("rho_min", 1.0, "must be in (0, 1), or 1 with penalty=two_sided; it is the floor as a share of the anchor"),
    ("lambda_ent", -1e-3, "must be >= 0; it is the weight of the entropy bonus, 0 switches it off"),
    ("lambda_low", -1, "must be >= 0; it is the weight of the penalty, 0 switches it off"),
    ("anchor_steps", 0, "must be an integer >= 1; it is the number of trainer steps over which the anchor is averaged"),
    (
        "anchor_steps",
        2.0,
        "must be an integer >= 1; it is the number of trainer steps over which the anchor is averaged",
    ),
    ("normalizer", "log_nucleous", "must be one of log_nucleus, none, log_vocab; did you mean log_nucleus?"),
    ("competition", "ratios", "must be one of ratio, exp_tau, sigmoid, inverse; did you mean ratio?"),
    ("mask", "rampp", "must be one of ramp, gated, hard, sigmoid, none; did you mean ramp?"),
    ("mask", None, "must be one of ramp, gated, hard, sigmoid, none"),
    ("mask", ["ramp"], "must be one of ramp, gated, hard, sigmoid, none"),
    ("quantile_scope", "minibatch", "must be one of response, mini_batch; did you mean mini_batch?"),
    ("average", "zzz", "must be one of count, mass"),
    ("entropy", "nucleous", "must be one of full, nucleus, normalized; did you mean nucleus?"),
    ("penalty", "two-sided", "must be one of floor, two_sided; did you mean two_sided?"),
    ("statistics_from", "steps", "must be one of exact, step; did you mean step?"),
]


@pytest.mark.parametrize(("field", "value", "sentence"), REFUSED)
def test_refused_with_one_sentence(field, value, sentence):
    with pytest.raises(ValueError) as error:
        PAECConfig(**{field: value})
    assert str(error.value) == f"method.{field}={value!r}: {sentence}"


NUMBERS = ["top_p", "beta", "rho", "competition_tau", "mask_width", "rho_min", "lambda_ent", "lambda_low"]


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [True, "0.5", None, math.nan, math.inf, -math.inf])
def test_not_a_finite_number(field, value):
    with pytest.raises(ValueError, match=rf"^method\.{field}={value!r}: "):
        PAECConfig(**{field: value})


@pytest.mark.parametrize("value", [True, "4", None, math.nan])
def test_anchor_steps_not_an_integer(value):
    with pytest.raises(ValueError, match=r"^method\.anchor_steps=.*: must be an integer >= 1"):
        PAECConfig(anchor_steps=value)


def test_the_ends_of_the_ranges_are_accepted():
    config = PAECConfig(top_p=1, beta=0, rho=0, lambda_ent=0, lambda_low=0, rho_min=1, penalty="two_sided")
    values = (config.top_p, config.beta, config.rho, config.lambda_ent, config.lambda_low, config.rho_min)
    assert values == (1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    assert all(type(value) is float for value in values)
    assert PAECConfig(beta=1).beta == 1.0


def test_every_field_has_a_docstring_with_its_mark():
    import ast
    import inspect

    (tree,) = ast.parse(inspect.getsource(PAECConfig)).body
    names = {field.name for field in dataclasses.fields(PAECConfig)}
    for field, text in zip(tree.body[1:], tree.body[2:], strict=False):
        if isinstance(field, ast.AnnAssign) and field.target.id in names:
            names.remove(field.target.id)
            assert isinstance(text, ast.Expr), field.target.id
            assert any(mark in text.value.value for mark in ("[P]", "[S]", "[D]")), field.target.id
    assert not names
