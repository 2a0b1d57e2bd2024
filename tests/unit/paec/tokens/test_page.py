"""The page as text: what it holds, and what cannot get out of it."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from pages import check_policy
from token_records import record_of, reported, response_of

from paec_loss import PAEC, position_mask
from paec_loss.methods import METHODS
from recipe.paec.tokens.page import Content, config_of, packed, payload, render
from recipe.paec.tokens.settings import Named
from recipe.paec.tokens.sources import Candidates, responses_of, rollouts_of, source_of

HOSTILE = "</script><img src=x onerror=alert(1)><!--<script>"


def content_of(*records, methods=("paec", "forking_tokens"), title="a run"):
    page, sources = [], []
    for record in records:
        sources.append(source_of(record, len(page), 50))
        page += responses_of(record, 50)
    return Content(title, page, sources, [Named(name, METHODS[name]()) for name in methods])


def numbers(text, kind):
    return np.frombuffer(base64.b64decode(text), f"<{kind}")


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_the_texts_are_the_records():
    record = record_of()
    data = payload(content_of(record))
    words = [data["words"][i] for i in numbers(data["texts"], "u4")]
    assert words == [text for one in record.responses for text in one.texts]
    assert [one["length"] for one in data["responses"]] == [30, 35, 30, 35]
    assert [one["score"] for one in data["responses"]] == [1, 0, 1, 0]
    assert [one["advantage"] for one in data["responses"]] == [1, -1, 1, -1]


def test_the_weights_are_the_masks():
    """Of two steps, each a mini-batch of its own, one after the other."""
    content = content_of(record_of(1), record_of(2))
    data = payload(content)
    expected = []
    for source in content.sources:
        rollouts, _ = rollouts_of(source, source.statistics[0.8], content.responses)
        mask = position_mask(rollouts.statistics, rollouts.response_mask, PAEC())
        expected += mask[rollouts.response_mask].tolist()
    found = numbers(data["methods"][0]["weights"], "f2")
    assert found.tolist() == np.array(expected, np.float16).tolist() and len(found) == 260
    starts = [(reading["response"], reading["source"], reading["start"]) for reading in data["readings"]]
    assert starts[:5] == [(0, 0, 0), (1, 0, 30), (2, 0, 65), (3, 0, 95), (4, 1, 130)]
    assert len(data["methods"][0]["thresholds"]) == 8 and data["methods"][1]["thresholds"] == [None] * 8


def test_what_is_missing_is_reported():
    data = payload(content_of(record_of(top_p=1.0)))
    paec, forking = data["methods"]
    assert paec["weights"] is None and paec["reasons"] == ["needs a nucleus of mass 0.8, here is none"]
    assert forking["weights"] is not None and forking["reasons"] == [""]
    assert np.isnan(numbers(data["columns"]["nucleus_entropy"], "f2")).all()
    assert np.isfinite(numbers(data["columns"]["entropy"], "f2")).all()


def test_vllm_minus_actor_is_beside_the_methods():
    """Of the sources that have it; a page where none has it does not offer it."""
    one = reported(response_of("000001-000000_0_0", 3), [0.25, np.nan, -2.0])
    data = payload(content_of(record_of(1, [one]), record_of(2)))
    paec, _, found = data["methods"]
    assert (paec["quantity"], found["quantity"], found["name"]) == ("weight", "difference", "vLLM minus actor")
    values = numbers(found["weights"], "f2").tolist()
    assert values[:3] == pytest.approx([0.25, np.nan, -2.0], abs=1e-3, nan_ok=True) and len(values) == 133
    assert np.isnan(values[3:]).all() and len(found["thresholds"]) == len(data["readings"]) == 5
    assert found["reasons"] == ["", "needs a training step's record with vLLM's log-probs"]
    assert [one["quantity"] for one in payload(content_of(record_of()))["methods"]] == ["weight", "weight"]


def test_candidates_are_words():
    content = content_of(record_of(responses=[response_of("000001-000000_0_0", 2)]), methods=("paec",))
    texts = {4: "so", 9: " new"}
    found = Candidates(np.array([[4, 9], [9, 4]]), np.log(np.array([[0.75, 0.25], [0.5, 0.5]])), texts)
    object.__setattr__(content.sources[0], "candidates", (found,))
    data = payload(content)
    words = numbers(data["candidates"][0]["words"], "u4").reshape(2, 5)
    assert [[data["words"][i] for i in row[:2]] for row in words] == [["so", " new"], [" new", "so"]]
    probabilities = np.exp(numbers(data["candidates"][0]["log_probs"], "f2").astype(float)).reshape(2, 5)
    assert (
        probabilities[0, :2].tolist() == pytest.approx([0.75, 0.25], rel=1e-3) and np.isnan(probabilities[:, 2:]).all()
    )


def test_numbers_are_little_endian():
    assert packed([[1.0], [0.5]], "f2") == base64.b64encode(b"\x00\x3c\x00\x38").decode()
    assert packed([torch.tensor([258])], "u4") == base64.b64encode(b"\x02\x01\x00\x00").decode()


def test_the_forms_are_those_of_the_first_method_of_paecs_kind():
    mine = PAEC(beta=0.5)
    assert config_of([Named("hapo", METHODS["hapo"]()), Named("paec", mine)]) is mine
    assert config_of([Named("hapo", METHODS["hapo"]())]) == PAEC()


def test_the_policy_allows_exactly_the_script_and_style_of_the_page():
    page = render(content_of(record_of()), "made now")
    check_policy(page)
    rest = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"\son\w+=|\sstyle=|javascript:|\s(src|action|data)=|<link|url\(|@import", rest)


def test_hostile_text_stays_text():
    one = response_of("000001-000000_0_0", 3, texts=["a", HOSTILE, "b"])
    object.__setattr__(one, "input", HOSTILE)
    page = render(content_of(record_of(responses=[one]), title=HOSTILE), "made now")
    assert HOSTILE not in page and "<img" not in page and page.count("</script>") == 2
    data = data_of(page)
    assert HOSTILE in data["words"] and data["responses"][0]["prompt"] == HOSTILE == data["title"]


def test_a_secret_of_the_environment_is_hidden(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    one = response_of("000001-000000_0_0", 1, texts=["my token is hf_abcdefgh12345678"])
    page = render(content_of(record_of(responses=[one])), "made now")
    assert "hf_abcdefgh12345678" not in page and "my token is [hidden]" in page
