"""The scoring pass: against one forward pass for each step without a cache, in an independent formula."""

import json

import pytest
import torch
from analysed import sampled_evaluation, write_lines

from recipe.paec.analyse.command import main
from recipe.paec.analyse.utility import Sample, Settings
from recipe.paec.analyse.utility_pass import Reader, scorer
from recipe.paec.common.errors import UserError
from recipe.paec.tokens.forward import tokenizer_of

RESPONSE = "3 + 4 = 7\n\nso 7 * 2 = 14\n\nThe answer is 14."
SAMPLE = Sample("p", "(3 + 4) * 2?", RESPONSE, "14", True)


def by_hand(folder, before: list[str]) -> tuple[list[float], list[float]]:
    """h_j and surprisal of "14" after each text, in float64, by a pass of its own for each."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    turns = [{"role": "user", "content": SAMPLE.prompt}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
    entropies, surprisals = [], []
    for text in before:
        whole, told = tokenizer.encode(text + "14"), tokenizer.encode(text)
        assert whole[: len(told)] == told  # this tokenizer has a token for each character
        with torch.no_grad():
            log_probs = model(torch.tensor([[*prompt, *whole]])).logits[0].log_softmax(-1)
        places = range(len(prompt) + len(told) - 1, len(prompt) + len(whole) - 1)
        entropies.append(sum(-float((log_probs[i].exp() * log_probs[i]).sum()) for i in places) / len(places))
        answer = zip(places, whole[len(told) :], strict=True)
        surprisals.append(-sum(float(log_probs[i, token]) for i, token in answer) / len(places))
    return entropies, surprisals


def test_the_entropies_are_those_of_passes_without_a_cache(tiny_files):
    folder = tiny_files / "model"
    told = "The answer is \\boxed{"
    steps = ["", "3 + 4 = 7\n\n", "3 + 4 = 7\n\nso 7 * 2 = 14\n\n"]
    entropies, surprisals = by_hand(folder, [step + told for step in steps])
    with scorer(Settings(str(folder))) as score:
        found, single = score([SAMPLE, Sample("p", SAMPLE.prompt, "It is 14.", "14", True)])
    assert len(found.entropy) == 3
    assert single.entropy == pytest.approx(entropies[:1], abs=1e-5)  # no step before the last one
    assert found.entropy == pytest.approx(entropies, abs=1e-5)
    assert found.surprisal == pytest.approx(surprisals, abs=1e-5)
    assert max(entropies) - min(entropies) > 1e-4  # the steps matter


def test_what_a_model_cannot_read(tiny_files):
    folder = tiny_files / "model"
    with scorer(Settings(str(folder))) as score:
        short, long = score([SAMPLE, Sample("q", "1?", "1 " * 5_000, "1", False)])
    assert short is not None and long is None
    with pytest.raises(UserError, match=r"model=nowhere: does not exist"), scorer(Settings("nowhere")):
        pass
    tokenizer = tokenizer_of(folder, "tiny")
    with scorer(Settings(str(folder))) as score:
        reader: Reader = score.__self__
        reader._vocabulary = len(tokenizer) // 4
        with pytest.raises(UserError, match="its tokenizer has more tokens than the model"):
            reader.score([SAMPLE])


def test_the_command(tmp_path, tiny_files, capsys):
    path = sampled_evaluation(tmp_path / "evaluation", {"aime24": ["Ab", "aB"]})
    rows = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        row.update(prompt=SAMPLE.prompt, ground_truth=SAMPLE.answer, response=SAMPLE.response)
    write_lines(path / "samples.jsonl", rows)
    output, model = tmp_path / "analysis.json", str(tiny_files / "model")
    assert main([str(path), "--only", "utility", "--model", model, "--output", str(output)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("## Reasoning utility\n\n| samples of") and " 2 right " in shown.out
    (found,) = json.loads(output.read_text())["analyses"]["utility"]
    entropies, surprisals = by_hand(tiny_files / "model", ["The answer is \\boxed{"])
    assert found["right"]["before"]["value"] == pytest.approx(entropies[0], abs=1e-5)
    assert found["wrong"]["surprisal_before"]["value"] == pytest.approx(surprisals[0], abs=1e-5)
    assert found["right"]["steps"] == {"value": 2, "low": 2, "high": 2}


def test_what_the_command_refuses(tmp_path, tiny_files, capsys):
    path, model = str(sampled_evaluation(tmp_path / "evaluation", {"aime24": ["Ab"]})), str(tiny_files / "model")
    for arguments, sentence in (
        (["--only", "utility"], "utility: needs a model that reads the responses: give --model"),
        (["--only", "support", "--model", model], f"--model {model}: only utility uses a model: add utility to --only"),
        (["--model", model, "--responses", "0"], "--responses 0: must be at least 1"),
        (["--model", model, "--before-answer", " "], "--before-answer: must not be empty"),
    ):
        assert main([path, *arguments]) == 2
        assert sentence in capsys.readouterr().err
