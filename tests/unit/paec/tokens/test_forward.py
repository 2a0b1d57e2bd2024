"""One forward pass of a model: statistics and candidates against Hugging Face's own log-probs."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from recipe.paec.common.errors import UserError
from recipe.paec.export.huggingface import EXPORT_FILE
from recipe.paec.tokens.forward import (
    hugging_face,
    read_with,
    template_kwargs_of,
    text_responses,
    texts_of,
    tokenizer_of,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_files):
    return tokenizer_of(tiny_files / "model", "tiny")


def text(content: str, prompt: str | None = None, chat: bool = True) -> dict:
    return {"text": content, "prompt": prompt, "score": None, "chat": chat}


def read(folder, tokenizer, page, **options):
    given = {"top_ps": [0.8, 1.0], "temperature": 0.7, "step": 1, "seed": 1, **options}
    return read_with(folder, "tiny", "tiny", tokenizer, page, range(len(page)), **given)


def test_the_statistics_are_the_models(tiny_files, tokenizer):
    from transformers import AutoModelForCausalLM

    page = text_responses([text("1 + 2 = 3", "What is 1 + 2?"), text("So the sum is 7.")], tokenizer)
    source = read(tiny_files / "model", tokenizer, page)
    model = AutoModelForCausalLM.from_pretrained(tiny_files / "model", dtype=torch.float32)
    assert source.rows == (0, 1) and len(source.candidates) == 2
    for number, response in enumerate(page):
        ids = torch.tensor([[*response.prompt_ids, *response.ids]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(response.prompt_ids) - 1 : -1]
        log_probs = (logits.double() / 0.7).log_softmax(-1)
        expected = log_probs.gather(1, torch.tensor(response.ids)[:, None])[:, 0]
        found = source.statistics[0.8]
        length = len(response.ids)
        torch.testing.assert_close(found.log_prob[number, :length].double(), expected, rtol=1e-4, atol=1e-4)
        ordered = log_probs.exp().sort(-1, descending=True).values.cumsum(-1)
        size = 1 + (ordered < 0.8).sum(-1)
        assert found.nucleus_size[number, :length].tolist() == size.tolist()
        whole = source.statistics[1.0]
        torch.testing.assert_close(whole.nucleus_entropy[number], whole.entropy[number])
        top = log_probs.topk(5, dim=-1)
        assert source.candidates[number].ids.tolist() == top.indices.tolist()
        assert torch.allclose(torch.tensor(source.candidates[number].log_probs).double(), top.values, atol=1e-4)
        assert source.candidates[number].texts[int(top.indices[0, 0])] is not None


def test_a_prompt_is_a_users_turn(tokenizer):
    (response,) = text_responses([text("7", "3 + 4?")], tokenizer)
    turns = [{"role": "user", "content": "3 + 4?"}]
    chat = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert response.prompt_ids == tuple(chat) and response.prompt == "3 + 4?" and response.texts == ("7",)
    (plain,) = text_responses([text("7", "3 + 4?", chat=False)], tokenizer)
    assert tokenizer.decode(plain.prompt_ids) == "3 + 4?"


def test_the_template_is_told_what_the_run_told_it(tokenizer, tmp_path):
    template = (
        "{{ messages[0]['content'] }}{% if enable_thinking is defined and not enable_thinking %} /no_think{% endif %}"
    )
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    run = tmp_path / "run"
    (run / "huggingface").mkdir(parents=True)
    (run / "huggingface" / EXPORT_FILE).write_text("{}")
    assert template_kwargs_of(str(run)) == {} == template_kwargs_of("some/model")
    (run / "config.yaml").write_text("data: {apply_chat_template_kwargs: {enable_thinking: false}}\n")
    for given in (run, run / "huggingface"):
        told = template_kwargs_of(str(given))
        (response,) = text_responses([text("7", "3 + 4?")], own, told)
        assert own.decode(response.prompt_ids) == "3 + 4? /no_think"
    (response,) = text_responses([text("7", "3 + 4?")], own)
    assert own.decode(response.prompt_ids) == "3 + 4?"


def test_without_a_prompt_the_first_token_is_context(tokenizer):
    (response,) = text_responses([text("So the sum")], tokenizer)
    assert len(response.prompt_ids) == 1
    assert tokenizer.decode([*response.prompt_ids, *response.ids]) == "So the sum"
    assert response.advantages is None and response.score is None
    with pytest.raises(UserError, match="text 1: has fewer than two tokens"):
        text_responses([text("7")], tokenizer)


def test_a_response_must_fit_the_model(tiny_files, tokenizer):
    (response,) = text_responses([text("So the sum")], tokenizer)
    with pytest.raises(UserError, match="has token 999999, but the vocabulary has"):
        read(tiny_files / "model", tokenizer, [replace(response, ids=(999999,))])
    with pytest.raises(UserError, match="tokens, more than the model's context"):
        read(tiny_files / "model", tokenizer, [replace(response, ids=response.ids * 5000)])


def test_a_file_of_text(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("So\n7")
    assert texts_of(file) == [{"text": "So\n7", "prompt": None, "score": None, "chat": False}]
    with pytest.raises(UserError, match="cannot be read"):
        texts_of(tmp_path / "none.txt")


def test_a_file_of_rollouts(tmp_path):
    file = tmp_path / "5.jsonl"
    file.write_text(json.dumps({"input": "3 + 4?", "output": "7", "score": 1.0}) + "\n" + json.dumps({"output": "8"}))
    assert texts_of(file) == [
        {"text": "7", "prompt": "3 + 4?", "score": 1.0, "chat": False},
        {"text": "8", "prompt": None, "score": None, "chat": False},
    ]
    for line, sentence in (
        ('{"input": "a"}', "line 1: is not a response: each line needs a field output"),
        ('{"output": "a", "score": "high"}', "line 1, field score: 'high' must be a number"),
        ("", "is empty: give a file with responses"),
    ):
        file.write_text(line)
        with pytest.raises(UserError, match=sentence):
            texts_of(file)


def test_lines_of_rollouts_end_at_line_feeds_alone(tmp_path):
    """JSON leaves other separators of lines in a text as they are; a blank line is none."""
    file, outputs = tmp_path / "5.jsonl", ["a\u2028b", "a\u2029b", "a\x85b"]
    lines = [json.dumps({"output": output}, ensure_ascii=False) for output in outputs]
    file.write_text("\n\n".join(lines) + "\n \n", encoding="utf-8")
    assert [one["text"] for one in texts_of(file)] == outputs
    file.write_text("\n".join([*lines, "", "{}"]), encoding="utf-8")
    with pytest.raises(UserError, match="line 5: is not a response"):
        texts_of(file)


def test_what_is_no_model(tmp_path):
    with (
        pytest.raises(UserError, match="does not exist, and is not in the Hugging Face cache"),
        hugging_face("no/such"),
    ):
        pass
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="it has no weights"), hugging_face(str(tmp_path)):
        pass


def test_a_model_folder_is_used_as_it_is(tiny_files):
    with hugging_face(str(tiny_files / "model")) as (folder, label):
        assert folder == tiny_files / "model" and label == "model"
