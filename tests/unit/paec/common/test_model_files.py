"""Files of a model: cut off, pickled, the context length in its configuration, its fingerprint."""

from __future__ import annotations

import pytest
import torch

from recipe.paec.common import model_files


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x00" * 64])
def test_invalid_weights(model, content):
    (model / "model.safetensors").write_bytes(content)
    (problem,) = model_files.file_errors(model, "m")
    assert (
        problem.startswith("m: model.safetensors is not a complete safetensors file")
        and "download the model again" in problem
    )


def test_pickled_weights_alone(model):
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    (problem,) = model_files.file_errors(model, "m")
    assert "its weights are pickles (*.bin), and loading them can execute arbitrary code:" in problem


@pytest.mark.parametrize(
    "content, length",
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({}, None),
        ({"max_position_embeddings": 32768, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 131072),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192),
    ],
)
def test_context_as_vllm_derives_it(content, length):
    assert model_files.context_length(content) == length


@pytest.mark.parametrize("position", [0, 3 * 2**19, 3 * 2**20 - 1])
def test_fingerprint_sees_other_weights(tmp_path, position):
    """First and last MiB of a file are read; training changes weights everywhere, a copied folder nowhere."""
    weights = bytearray(3 * 2**20)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(weights)
    assert model_files.fingerprint(tmp_path / "a") == model_files.fingerprint(tmp_path / "b")
    weights[position] = 1
    (tmp_path / "b" / "model.safetensors").write_bytes(weights)
    same = model_files.fingerprint(tmp_path / "a") == model_files.fingerprint(tmp_path / "b")
    assert same == (position == 3 * 2**19)  # the middle MiB is not read


@pytest.mark.parametrize(
    "name", ["config.json", "chat_template.jinja", "generation_config.json", "merges.txt", "actor/huggingface/x.jinja"]
)
def test_fingerprint_sees_all_that_responses_depend_on(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    before = model_files.fingerprint(tmp_path)
    (tmp_path / name).write_text("a")
    one = model_files.fingerprint(tmp_path)
    (tmp_path / name).write_text("b")
    assert len({before, one, model_files.fingerprint(tmp_path)}) == 3
