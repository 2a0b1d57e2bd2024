"""The command line of `paec tokens`: what it means, and one sentence for what it cannot mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from paec_loss import Method
from paec_loss.methods import METHODS
from recipe.paec.common.errors import UserError
from recipe.paec.tokens.settings import RESPONSES, SHOWN, made, read_request


@dataclass(frozen=True)
class Mine(Method):
    """A method of a user."""

    top: float = 0.5

    def token_advantages(self, tokens, context, update):
        return tokens.advantages * self.top


def test_a_run():
    request = read_request(["outputs/a"])
    assert (request.run, request.steps, request.models) == (Path("outputs/a"), (), ())
    assert [named.name for named in request.methods] == list(SHOWN)
    assert all(named.method == METHODS[named.name]() for named in request.methods)
    assert (request.method, request.output, request.responses, request.temperature) == (None, None, RESPONSES, None)
    assert request.validation is False


def test_steps_models_and_the_rest():
    given = ["a", "3", "10", "model=x", "model=y/z", "output=o.html", "responses=7", "temperature=0.6"]
    request = read_request(given)
    assert request.steps == (3, 10) and request.models == ("x", "y/z") and request.output == Path("o.html")
    assert request.responses == 7 and request.temperature == 0.6


def test_a_run_whose_name_holds_its_overrides(tmp_path):
    run = tmp_path / "tiny_cpu-paec-rollout.n=4,anchor_steps=2"
    with pytest.raises(UserError, match="there is no such key"):
        read_request([str(run), "3"])
    run.mkdir()
    request = read_request([str(run), "3", "validation=true"])
    assert (request.run, request.steps, request.validation) == (run, (3,), True)


def test_the_validations_of_a_run():
    assert read_request(["a", "0", "20", "validation=true"]).validation is True
    assert read_request(["a", "validation=false"]).validation is False


def test_a_text():
    request = read_request(["model=m", "text=a=b", "prompt=What?"])
    assert request.text == "a=b" and request.prompt == "What?" and request.run is None


def test_a_method_with_fields():
    named = read_request(["a", "method=paec", "method.rho=0.7", "method.mask=hard"]).method
    assert named.name == "paec (rho=0.7, mask=hard)" and named.method == METHODS["paec"](rho=0.7, mask="hard")
    assert read_request(["a", "method=clip_cov", "method.ratio=2e-3"]).method.method.ratio == 0.002


@pytest.mark.parametrize(
    "given", [["method=custom", f"method.class_path={__name__}.Mine"], [f"method={__name__}.Mine"]]
)
def test_a_method_of_the_users_own(given):
    named = read_request(["a", *given, "method.top=0.25"]).method
    assert named.name == "Mine (top=0.25)" and named.method.top == 0.25 and type(named.method).__name__ == "Mine"


def test_the_methods_of_the_catalogue():
    assert [named.name for named in read_request(["a", "methods=[steer,paec]"]).methods] == [
        "steer",
        "paec",
    ]
    assert [named.name for named in read_request(["a", "methods=all"]).methods] == list(METHODS)


def test_the_methods_of_a_run():
    node = {"_target_": "paec_loss.methods.paec.PAEC", "rho": 0.5}
    also = {"steer": {"_target_": "paec_loss.methods.entropy_bonus.EntropyBonus"}}
    assert [(n.name, n.method) for n in made(node, also)] == [
        ("paec", METHODS["paec"](rho=0.5)),
        ("entropy_bonus", METHODS["entropy_bonus"]()),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give a run, or model=... with text=... or file=..."),
        (["model=m"], "model=...: give text=... or file=... (one of them), or a run whose responses the model reads"),
        (["model=m", "text=a", "file=b"], "model=...: give text=... or file=... (one of them), or a run"),
        (["a", "text=b"], "text=b: a run has its own responses: give a run, or text=..."),
        (["a", "last"], "last: is not a step: write paec tokens RUN STEP"),
        (["a", "modle=x"], "modle=x: there is no such key: did you mean model?"),
        (["a", "--fast"], "--fast: unknown option: write key=value"),
        (["a", "1", "--output", "x.html"], "--output: unknown option: write key=value, such as output=..."),
        (["a", "prompt=x"], "prompt=...: can only be used with text=..."),
        (["a", "responses=0"], "responses=0: must be an integer >= 1"),
        (["a", "validation=1"], "validation=1: must be true or false"),
        (["model=m", "text=a", "validation=true"], "validation=true: needs a run: write paec tokens RUN valid"),
        (["a", "temperature=-1"], "temperature=-1: must be a number > 0"),
        (["a", "method.rho=0.5"], "method.rho=0.5: which method? Add method=NAME"),
        (["a", "method=steeer"], "method=steeer: there is no such method: did you mean steer?"),
        (["a", "method=paec", "method.rho=2"], "method.rho=2"),
        (
            ["a", "method=paec", "method.roh=0.5"],
            "method.roh=0.5: PAEC has no field roh: did you mean rho? Its fields are statistics_from, ",
        ),
        (["a", "method=custom"], "method.class_path=null: method=custom needs the import path of your class"),
        (
            ["a", "method=custom", "method.class_path=no.such.Thing"],
            "method.class_path=no.such.Thing: cannot be imported",
        ),
        (["a", "method=no.such.Thing"], "method.class_path=no.such.Thing: cannot be imported"),
        (["a", "methods=paec,sterr"], "methods=paec,sterr: there is no method sterr: did you mean steer?"),
    ],
)
def test_what_it_cannot_mean(arguments, sentence):
    with pytest.raises(UserError) as error:
        read_request(arguments)
    assert str(error.value).startswith(sentence)
