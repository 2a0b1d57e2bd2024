"""What a command line of a grid means, and what is refused."""

from __future__ import annotations

import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.grid import command as grid_command
from recipe.paec.grid import request


@pytest.mark.parametrize(
    "word, label, method, overrides",
    [
        ("paec", "paec", "paec", ()),
        ("paec:method.rho=0.7", "paec-rho=0.7", "paec", ("method.rho=0.7",)),
        ("low=paec:method.rho=0.7:+x=[a,b]", "low", "paec", ("method.rho=0.7", "+x=[a,b]")),
        ("grpo=none", "grpo", "none", ()),
        ("my.Method:method.x=1", "my.Method-x=1", "my.Method", ("method.x=1",)),
        (
            "custom:method.class_path=my.Method",
            "custom-class_path=my.Method",
            "custom",
            ("method.class_path=my.Method",),
        ),
    ],
)
def test_a_word_of_methods(word, label, method, overrides):
    assert request.parse_entry(word) == request.Entry(label, method, overrides)


def test_a_class_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "own_grid.py").write_text(
        "from dataclasses import dataclass\nfrom paec_loss.methods.paec import PAEC\n\n"
        "@dataclass(frozen=True)\nclass Sharper(PAEC):\n    more: float = 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = request.parse(["METHODS=none own_grid.Sharper:method.more=2"], {})
    config = found.configuration(found.entries[1], 0)
    assert (config.method.class_path, config.method.more) == ("own_grid.Sharper", 2)
    assert config.run.name == "tiny_cpu-own_grid.Sharper-more=2-seed0"


def test_names_do_not_depend_on_where_it_runs(capsys):
    words = ["METHODS=none low=paec:method.rho=0.7", "SEEDS=3 04", "lora.rank=2", "trainer.save_freq=1"]
    found = request.parse(words, {"EXPERIMENT": "qwen7b", "SEEDS": "9"})
    names = [found.run_name(entry, seed) for entry, seed in found.pairs()]
    assert names == [f"qwen7b-{label}-lora.rank=2-seed{seed}" for seed in (3, 4) for label in ("none", "low")]
    assert found.name == "compare-qwen7b-lora.rank=2"
    assert grid_command.run([*words, "EXPERIMENT=qwen7b", "--task", "3"]) == 0  # what the array's task asks
    expected = ["low", "4", "method=paec", "method.rho=0.7", "seed=4", *words[2:], f"run.name='{names[3]}'"]
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], 'METHODS is empty: name the methods to compare, as in METHODS="none paec"'),
        (
            ["METHODS=none:"],
            "METHODS: 'none:' must have the form [LABEL=]METHOD[:OVERRIDE]..., as in low=paec:method.rho_min=0.5",
        ),
        (["METHODS=none:rho"], "METHODS: 'none:rho': 'rho' is not an override: write key=value"),
        (["METHODS=a/b"], "METHODS: 'a/b' becomes part of a folder name"),
        (["METHODS=none paec none"], "METHODS: none occurs twice: leave one out, or give it its own LABEL="),
        (["METHODS=none", "SEEDS=1 2 01"], "SEEDS: 1 occurs twice"),
        (["METHODS=none", "SEEDS=1 -2"], "SEEDS: -2: must be an integer >= 0 and <= 4294901760"),
        (["METHODS=none", "SEEDS=0 99999999999"], "SEEDS: 99999999999: must be an integer >= 0 and <= 4294901760"),
        (["METHODS=none", f"SEEDS=0 {'9' * 5000}"], "SEEDS: 9999"),
        (["METHODS=none", "SEEDS=1", "METHODS=clip_cov"], "METHODS is given 2 times: give it once"),
        (["METHODS=none", "SEEDS= "], 'SEEDS is empty: give at least one seed, as in SEEDS="0 1 2"'),
        (["METHODS=none", "GRID=../x"], "GRID=../x: must be a folder name with only"),
        (["METHODS=none", "--dry"], "--dry: must be an override key=value, METHODS="),
        (["METHODS=none", "method=siren"], "method=siren: the grid sets method itself: use METHODS"),
        (["METHODS=none:seed=2"], "seed=2: the grid sets seed itself: use SEEDS"),
        (["METHODS=none", "run.fresh=true"], "run.fresh=true: the grid sets run.fresh itself: use run.root"),
        (["METHODS=none", "+x.api_key=abcdefgh"], "x.api_key would put a secret where others can read it"),
        (["METHODS=none paec", "SEEDS=1 2", "--task", "4"], "2 methods and 2 seeds: submit with sbatch --array=0-3"),
        (["METHODS=none paec", "SEEDS=1 2", "--task", "-1"], "2 methods and 2 seeds: submit with sbatch --array=0-3"),
    ],
)
def test_refused_at_once(arguments, message, monkeypatch):
    for knob in request.KNOBS:
        monkeypatch.delenv(knob, raising=False)
    with pytest.raises(UserError) as error:
        grid_command.run(arguments)
    assert str(error.value).startswith(message)


def test_a_key_that_is_given_twice_has_the_note_of_a_training():
    steps = ["trainer.total_training_steps=2", "trainer.total_training_steps=3"]
    found = request.parse(["METHODS=none low=paec:method.rho=0.5:method.rho=0.7", *steps], {})
    assert found.given_twice() == [
        "trainer.total_training_steps is given 2 times: trainer.total_training_steps=3 is used",
        "low: method.rho is given 2 times: method.rho=0.7 is used",
    ]
