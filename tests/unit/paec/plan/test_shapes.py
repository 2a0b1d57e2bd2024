"""Shapes of models: published numbers of parameters, models that are built, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from doctor_cases import sharded
from transformers import AutoConfig, AutoModelForCausalLM

from recipe.paec.common import model_files
from recipe.paec.common.errors import UserError
from recipe.paec.plan import shapes
from recipe.paec.plan.shapes import QWEN


def test_parameters_of_one_file_and_of_several(model, tiny_files):
    count = shapes.parameter_count(str(model))
    content = model_files.read_config(model)
    assert count == shapes.read_shape(content).parameters
    sharded(model)
    assert shapes.parameter_count(str(model)) == count
    assert model_files.file_errors(model, "m") == []


def test_published_parameter_counts():
    assert {name: shape.parameters for name, shape in QWEN.items()} == {
        "0.5B": 494_032_768,
        "1.5B": 1_543_714_304,
        "7B": 7_615_616_512,
        "14B": 14_770_033_664,
        "32B": 32_763_876_352,
    }
    # Qwen3-0.6B's files hold 751,632,384: the tied head is stored once more.
    assert shapes.QWEN3["0.6B"].parameters == 596_049_920 == 751_632_384 - 151_936 * 1024


SMALL = dict(hidden_size=48, intermediate_size=112, num_hidden_layers=3, num_attention_heads=6, vocab_size=301)


@pytest.mark.parametrize(
    "family, fields",
    [
        ("qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
        ("qwen2", {"num_key_value_heads": 6, "tie_word_embeddings": False}),
        ("qwen3", {"num_key_value_heads": 3, "head_dim": 20, "tie_word_embeddings": False}),
        ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    ],
)
def test_parameters_of_models_that_are_built(family, fields, tmp_path):
    config = AutoConfig.for_model(family, **SMALL, **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path)
    shape, source = shapes.find_shape(str(tmp_path))
    assert source == str(tmp_path / "config.json")
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.layer == sum(p.numel() for p in model.model.layers[0].parameters())
    assert shape.embedding == model.lm_head.weight.numel()


@pytest.mark.parametrize(
    "path, size",
    [
        ("Qwen/Qwen2.5-Math-1.5B", "1.5B"),
        ("Qwen/Qwen2.5-7B-Instruct", "7B"),
        ("/nowhere/models/Qwen2.5-32B/", "32B"),
    ],
)
def test_models_that_are_not_here(path, size):
    assert shapes.find_shape(path) == (QWEN[size], f"built-in table, Qwen2.5 {size}")


@pytest.mark.parametrize("path", ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", "models/Qwen3-0.6B/"])
def test_qwen3_that_is_not_here(path):
    assert shapes.find_shape(path) == (shapes.QWEN3["0.6B"], "built-in table, Qwen3 0.6B")


@pytest.mark.parametrize("path", ["Qwen/Qwen2.5-3B", "Qwen/Qwen3-8B", "my/Qwen2.5-7B-tuned", ""])
def test_unknown_models_are_refused(path):
    with pytest.raises(UserError, match="config.json"):
        shapes.find_shape(path)


@pytest.mark.parametrize(
    "content, words",
    [
        ({"model_type": "mixtral"}, "model_type=mixtral"),
        ({}, "model_type=None"),
        ({"model_type": "qwen2", "num_attention_heads": 2}, "'num_hidden_layers'"),
    ],
)
def test_bad_model_folders(tmp_path, content, words):
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as error:
        shapes.find_shape(str(tmp_path))
    assert words in str(error.value) and str(tmp_path) in str(error.value)
