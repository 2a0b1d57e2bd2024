"""Overrides that Hydra needs in another form, and what configs/ makes of them."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.hydra_config import HydraConfig

from recipe.paec.config import composition
from recipe.paec.config.composition import with_own_class


@pytest.mark.parametrize(
    "given, found",
    [
        ("method=a.B method.x=1 seed=2", "method=custom method.class_path=a.B +method.x=1 seed=2"),
        ("method.x=1 method=a.b.C also=siren", "+method.x=1 method=custom method.class_path=a.b.C also=siren"),
        ("method=custom method.class_path=a.B method.x=1", "method=custom method.class_path=a.B +method.x=1"),
        ("method=custom method.class_path=a.B +method.x=1", "method=custom method.class_path=a.B +method.x=1"),
        ("method=paec method.rho=0.5", "method=paec method.rho=0.5"),
        ("method=paec,siren lora.rank=0.5", "method=paec,siren lora.rank=0.5"),
        ("method=custom --cfg job ~method.x", "method=custom --cfg job ~method.x"),
        ("also=a.B data.x=a.B", "also=a.B data.x=a.B"),
    ],
)
def test_a_class_of_the_users_own(given, found):
    assert with_own_class(given.split()) == found.split()


@pytest.mark.parametrize("experiment, variable", [("tiny_cpu", "PAEC_TINY"), ("tiny_math", "PAEC_TINY_MATH")])
def test_a_folder_for_model_and_data_may_have_any_name(compose, monkeypatch, experiment, variable):
    monkeypatch.setenv(f"{variable}_DIR", "/my data/it's $HOME")
    monkeypatch.setenv(f"{variable}_ARGS", "--train 64")
    words = shlex.split(compose(f"experiment={experiment}").run.prepare_command)
    assert words[words.index("--output") :] == ["--output", "/my data/it's $HOME", "--train", "64"]


def test_the_defaults_leave_the_command_line_known():
    composition.compose("train", ["experiment=tiny_cpu", "seed=7"])
    assert composition.defaults("train").seed == 1
    assert list(HydraConfig.get().overrides.task) == ["experiment=tiny_cpu", "seed=7"]
