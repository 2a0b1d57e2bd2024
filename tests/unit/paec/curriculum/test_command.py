"""The command refuses what cannot be scored."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from recipe.paec.common.errors import UserError
from recipe.paec.config import resolve
from recipe.paec.curriculum import command as curriculum_command


def command(*overrides: str) -> None:
    """The command with these arguments."""
    curriculum_command.run(resolve.composed(*overrides))


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["curriculum=semantic_entropy", "data.curriculum.samples=1"], "data.curriculum.samples=1: must be"),
        (["curriculum=none"], "curriculum=none: there is nothing to score:"),
        (["curriculum=semantic_entropy", "+data.apply_chat_template_kwargs.a=1"], "data.apply_chat_template_kwargs: "),
        (
            ["curriculum=semantic_entropy", "run.prepare_command=null", "model.path=/nowhere"],
            "model.path=/nowhere: does not exist",
        ),
        (
            ["curriculum=semantic_entropy", "run.prepare_command=null", "data.train_files=[a.parquet]"],
            "a.parquet does not exist",
        ),
    ],
)
def test_the_command_refuses(overrides, words):
    with pytest.raises(UserError) as raised:
        command(*overrides)
    assert any(words in problem for problem in raised.value.errors)


def test_the_configuration_alone_is_printed_and_nothing_starts(capsys):
    command("curriculum=semantic_entropy", "run.prepare_command=null", "model.path=/nowhere", "run.print_config=true")
    config = OmegaConf.create(capsys.readouterr().out)
    assert (config.model.path, config.data.curriculum.samples) == ("/nowhere", 8)
