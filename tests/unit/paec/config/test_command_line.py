"""A misspelt key on the command line is named, with what was meant."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from recipe.paec.common.repository import REPOSITORY
from recipe.paec.config.command_line import with_own_class


@pytest.mark.parametrize(
    "override, words",
    [
        ("method.rhoo=0.7", ["unknown configuration key method.rhoo", "did you mean method.rho?"]),
        ("trainer.total_steps=3", ["unknown configuration key trainer.total_steps"]),
        ("method=peac", ["no method peac", "paec"]),
    ],
)
def test_unknown_keys_on_the_command_line(override, words):
    done = subprocess.run(
        [sys.executable, "-m", "recipe.paec.train", override], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
    assert all(word in done.stderr for word in words), done.stderr


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
