"""A model's own code is not executed when its tokenizer is loaded."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep import tiny_model
from recipe.paec.common.errors import UserError
from recipe.paec.common.prompts import load_tokenizer


@pytest.fixture
def model_with_code(tmp_path) -> tuple[Path, Path]:
    """A model folder whose own modelling, configuration and tokenizer code would create a file; (folder, canary)."""
    folder, canary = tmp_path / "model", tmp_path / "canary"
    tiny_model.build(folder)
    code = [
        "from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer",
        f"open({str(canary)!r}, 'w').close()",
    ]
    bases = {"C": "Qwen2Config", "M": "Qwen2ForCausalLM", "T": "Qwen2Tokenizer"}
    code += [f"class {name}({base}):\n    pass" for name, base in bases.items()]
    (folder / "planted.py").write_text("\n".join(code) + "\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "planted.C", "AutoModelForCausalLM": "planted.M"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["planted.T", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder, canary


def test_a_models_own_code_is_not_executed(model_with_code):
    folder, canary = model_with_code
    load_tokenizer(folder, None, "model", "")
    from verl.workers.config import HFModelConfig

    HFModelConfig(path=str(folder))  # what verl's workers load first: configuration and tokenizer
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    assert not canary.exists()
    AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert canary.exists(), "the canary must work for its absence to say anything"


def test_a_model_that_needs_its_own_code_is_refused_at_once(model_with_code):
    folder, canary = model_with_code
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "planted"}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "tokenizer_class": "PlantedTokenizer"}))
    started = time.monotonic()
    with pytest.raises(UserError, match="model: the tokenizer cannot be loaded"):
        load_tokenizer(folder, None, "model", "")
    assert time.monotonic() - started < 10 and not canary.exists(), "no question on the terminal either"
