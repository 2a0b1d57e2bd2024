"""The files of a curriculum: their names, their scores, and what a curriculum cannot be combined with."""

from __future__ import annotations

import math

import pytest

from recipe.paec.config import rules
from recipe.paec.config.identity import identity
from recipe.paec.config.scored_files import original_path, scored_path
from recipe.paec.curriculum import prompt_scores
from recipe.paec.doctor import inputs


@pytest.fixture
def tiny_config(compose, tiny_files, monkeypatch):
    """tiny_config("key=value", ...) -> configuration over a few rows of countdown."""
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    return lambda *overrides: compose("data.train_batch_size=8", "curriculum=semantic_entropy", *overrides)


def test_names():
    assert str(scored_path("a/train.parquet")) == "a/train.semantic_entropy.parquet"
    assert scored_path(scored_path("x.parquet")) == scored_path("x.parquet")
    assert original_path(scored_path("a/x.parquet")) == original_path("a/x.parquet")


@pytest.mark.parametrize(
    "override, words",
    [
        ("data.curriculum.stages=0", "data.curriculum.stages=0: must be an integer >= 1"),
        ("data.curriculum.stages=two", "data.curriculum.stages=two: must be an integer >= 1"),
        ("data.curriculum.samples=1", "data.curriculum.samples=1: must be an integer >= 2"),
        ("data.curriculum.stages=151", "data.curriculum.stages=151 is more than trainer.total_training_steps=150"),
        ("data.shuffle=false", "data.shuffle=false: a curriculum sets the order and shuffles"),
        ("+algorithm.filter_groups.enable=true", "algorithm.filter_groups.enable=true draws more prompts"),
    ],
)
def test_bad_configurations(tiny_config, override, words):
    override = override.removeprefix("+") if "filter_groups" in override else override
    assert any(words in problem for problem in rules.check_config(tiny_config(override)))


def test_a_file_without_scores_names_the_command(tiny_config):
    (problem,) = inputs.check_inputs(tiny_config())
    assert "64 of 64 rows have no extra_info.semantic_entropy: run python -m recipe.paec.curriculum" in problem


def test_an_existing_scored_file_is_used(tiny_config, tiny_files, scored):
    copy = tiny_files / "data" / scored.name
    copy.write_bytes(scored.read_bytes())
    try:
        config = tiny_config()
        assert config.data.train_files == [str(copy)] and inputs.check_inputs(config) == []
        assert identity(config)["data.curriculum.stages"] == 2
        (problem,) = inputs.check_inputs(tiny_config("data.curriculum.stages=9"))
        assert "a stage has 7 of the 64 rows, fewer than data.train_batch_size=8" in problem
    finally:
        copy.unlink()


@pytest.mark.parametrize("score, words", [(None, "1 of 64 rows have no"), (-1.0, "is -1.0"), (math.nan, "is nan")])
def test_bad_scores(tiny_config, tiny_files, tmp_path, score, words):
    path = tmp_path / "scored.parquet"
    scores = {i: 0.5 for i in range(1, 64)} | ({} if score is None else {0: score})
    prompt_scores.write_scores(tiny_files / "data" / "train.parquet", path, scores, {})
    (problem,) = inputs.check_inputs(tiny_config(f"data.train_files=[{path}]"))
    assert words in problem
