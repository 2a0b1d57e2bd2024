"""The sections with a dataclass: nothing is converted, and no message speaks of the library's types."""

from __future__ import annotations

import json
import sys
from typing import get_type_hints

import pytest
from omegaconf import OmegaConf

from recipe.paec.common import folder_kinds
from recipe.paec.config import keys, rules, typed
from recipe.paec.config.schema import SECTIONS, EvaluationConfig
from recipe.paec.config.values import shown
from recipe.paec.train import command

FLAGS = [
    f"{name}.{field}"
    for name, schema in SECTIONS.items()
    for field, kind in get_type_hints(schema).items()
    if kind is bool
]
"""Every field that is true or false, of a training."""
OF_EVALUATION = [key for key, rule in typed.rules_of(EvaluationConfig).items() if rule is typed.FLAG]


def test_which_fields_are_flags():
    assert {"run.fresh", "run.export", "run.dry_run", "cluster.fork_workers", "lora.merge"} <= set(FLAGS)
    assert {"fresh", "dry_run", "cluster.compile", "engine.enforce_eager"} <= set(OF_EVALUATION)


def test_a_flag_is_true_or_false(tiny_config):
    """The text "no" is true in Python: run.fresh=no would delete the run."""
    for value in ("no", "off", "n", "No", "false", "yes", 0, 1, None, 1.0):
        config = tiny_config()
        for key in FLAGS:
            OmegaConf.update(config, key, value)
        assert rules.check_config(config) == [f"{key}={shown(value)}: must be true or false" for key in FLAGS]


def test_nothing_is_deleted(tmp_path, monkeypatch, capsys):
    """A run with a checkpoint, and the command that asks not to delete it."""
    checkpoint = tmp_path / "mine" / "checkpoints" / "global_step_4" / "paec_state.json"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("{}")
    mark = {"kind": "run", "experiment": "tiny_cpu", "name": "mine"}
    (tmp_path / "mine" / folder_kinds.MARK).write_text(json.dumps(mark))
    monkeypatch.setattr(sys, "argv", ["train", f"run.root={tmp_path}", "run.name=mine", "run.fresh=no"])
    assert command.main() == 2 and checkpoint.is_file()
    assert capsys.readouterr() == ("", "error: run.fresh=no: run.fresh must be true or false\n")


@pytest.mark.parametrize("key", [*FLAGS, "actor_rollout_ref.actor.fsdp_config.forward_prefetch"])
def test_a_flag_on_the_command_line(key):
    """Refused before anything is composed; so are those of verl."""
    for value in ("no", "off", "n", '"false"'):
        assert keys.check_overrides([f"{key}={value}"]) == [f"{key}={value}: {key} must be true or false"]
    assert keys.check_overrides([f"{key}=False"]) == []


@pytest.mark.parametrize(
    "override, sentence",
    [
        ('run.keep_best="1"', "run.keep_best=1: must be an integer >= 0"),
        ("cluster.nodes=2.0", "cluster.nodes=2.0: must be an integer >= 1"),
        (
            "run.best_metric=1",
            "run.best_metric=1: must be text, or null, and this is a number: write 'run.best_metric=\"1\"'",
        ),
        (
            "cluster.attention=true",
            "cluster.attention=true: must be text, and this is true or false: write 'cluster.attention=\"true\"'",
        ),
        ("cluster.attention=[sdpa]", "cluster.attention=['sdpa']: must be text"),
        ("run.fresch=true", "run.fresch: run has no such key: did you mean fresh?"),
    ],
)
def test_values_of_another_type(tiny_config, override, sentence):
    assert rules.check_config(tiny_config(override)) == [sentence]


def test_no_message_names_a_type_of_the_library(tiny_config):
    sections = OmegaConf.to_container(OmegaConf.masked_copy(tiny_config(), list(SECTIONS)))
    known = {key for name, schema in SECTIONS.items() for key in typed.rules_of(schema, f"{name}.")}
    said = []
    for value in ("word", 1.5, 3, True, None, [], [None], {"a": None}):
        for key in known - {"run.overrides"}:
            config = OmegaConf.create(sections)
            OmegaConf.update(config, key, value, merge=False)
            name = key.split(".")[0]
            said += typed.check_types(config, SECTIONS[name], name)
    assert len(said) > 100
    assert not [line for line in said if "Node" in line or "Config" in line]
