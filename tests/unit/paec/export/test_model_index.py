"""Evaluation results in a card: what `huggingface_hub` reads back from it is what scores.json has."""

from __future__ import annotations

import pytest
import yaml
from export_cases import evaluated
from graded_samples import answers
from huggingface_hub import ModelCard

from recipe.paec.export.model_index import BEGIN, END, section, with_evaluations

CARD = """---
library_name: transformers
tags: [paec, verl]
---

# model after 3 steps of paec

Mine.

## Provenance

| what | value |
"""


@pytest.fixture
def scores(tmp_path):
    return evaluated(tmp_path / "e", tmp_path)


def test_the_index_is_read_back(scores):
    card = ModelCard(with_evaluations(CARD, "tiny", [scores]))
    aime, math = scores["benchmarks"]["aime24"], scores["benchmarks"]["math500"]
    assert (card.data.model_name, card.data.library_name, card.data.tags) == ("tiny", "transformers", ["paec", "verl"])
    found = {(result.dataset_type, result.metric_name): result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {
        ("HuggingFaceH4/aime_2024", "avg@4 (luffy)"): aime["avg"]["value"],
        ("HuggingFaceH4/aime_2024", "maj@4 (luffy)"): aime["maj"]["4"]["value"],
        ("HuggingFaceH4/aime_2024", "pass@4 (luffy)"): aime["pass"]["4"]["value"],
        ("HuggingFaceH4/MATH-500", "avg@2 (luffy)"): math["avg"]["value"],
        ("HuggingFaceH4/MATH-500", "maj@2 (luffy)"): math["maj"]["2"]["value"],
        ("HuggingFaceH4/MATH-500", "pass@2 (luffy)"): math["pass"]["2"]["value"],
    }
    assert aime["avg"]["value"] == pytest.approx(5 / 12) and math["pass"]["2"]["value"] == 1
    result = found["HuggingFaceH4/aime_2024", "avg@4 (luffy)"]
    assert (result.task_type, result.metric_type, result.dataset_name) == ("text-generation", "accuracy", "AIME24")
    assert result.metric_args == {
        "samples": 4,
        "problems": 3,
        "temperature": 0.6,
        "top_p": 1.0,
        "top_k": -1,
        "max_tokens": 8192,
        "low_95": aime["avg"]["low"],
        "high_95": aime["avg"]["high"],
    }


def test_the_metadata_has_the_hubs_form(scores):
    metadata = yaml.safe_load(with_evaluations(CARD, "tiny", [scores]).split("---\n")[1])
    (model,) = metadata["model-index"]
    assert model["name"] == "tiny" and len(model["results"]) == 2
    for result in model["results"]:
        assert result.keys() == {"task", "dataset", "metrics"}
        assert result["dataset"].keys() == {"name", "type"}
        assert all({"type", "value", "name", "args"} <= metric.keys() for metric in result["metrics"])


def test_the_section_is_before_the_provenance_and_is_replaced(scores, tmp_path):
    once = with_evaluations(CARD, "tiny", [scores])
    assert once.index("Mine.") < once.index(BEGIN) < once.index(END) < once.index("## Provenance")
    assert with_evaluations(once, "tiny", [scores]) == once
    other = evaluated(tmp_path / "f", tmp_path, answers("a", "RR", benchmark="reasoning_gym/countdown"))
    both = with_evaluations(once, "tiny", [scores, other])
    assert both.count(BEGIN) == both.count("## Evaluation") == 1 and both.count("Protocol luffy: ") == 2
    assert ModelCard(both).data.eval_results[-1].dataset_type == "reasoning_gym/countdown"
    assert "## Evaluation" in with_evaluations("# no metadata\n", "tiny", [scores])


def test_the_section_by_hand(scores):
    text = section(scores)
    assert text.startswith(
        "Protocol luffy: temperature 0.6, top_p 1.0, top_k -1, up to 8192 new tokens; seed 1. In percent"
    )
    assert "41.7 [" in text, "5 of 12"
    assert "Contamination: not checked, because the training data was not known." in text
    assert text.endswith("Graded with math-verify 0.9.0, sympy 1.14.0; vLLM 0.28.0, recipe commit c0ffee, 2026-11-29.")
    scores["contamination"] = {
        "trained_on": ["/home/alice/train.parquet"],
        "benchmarks": {
            "aime24": {"contaminated": 1, "size": 3, "avg_without": {"value": 0.5, "low": None, "high": None}},
            "math500": {"contaminated": 0, "size": 2, "avg_without": None},
        },
    }
    assert "training data: AIME24 1 of 3 (avg@n without them 50.0), MATH500 0 of 2." in section(scores)
    assert "alice" not in section(scores)
