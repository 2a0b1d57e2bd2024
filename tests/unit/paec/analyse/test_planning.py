"""Entropy of planning phrases against closed forms, and what is read for it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from analysed import lab_run, sampled_evaluation, write_lines
from token_records import record_of, response_of

from recipe.paec.analyse.intervals import intervals
from recipe.paec.analyse.phrases import DEFAULT, PhraseList
from recipe.paec.analyse.planning import entropy, of_problems, of_source, of_texts, of_tokens, statistics_of, table
from recipe.paec.analyse.sources import read_source
from recipe.paec.common.errors import UserError
from recipe.paec.run import token_record

FOUR = PhraseList("four", ("aa", "bb", "cc", "dd"), ("x", "x", "y", "y"))


def test_entropy_in_closed_form():
    assert entropy(np.array([4, 2, 1, 1.0])) == pytest.approx(1.213008, abs=1e-6)
    assert entropy(np.array([4, 2, 1, 1.0])) / math.log(4) == pytest.approx(0.875, rel=1e-12)
    np.testing.assert_allclose(entropy(np.array([[3, 3], [5, 0]])), [math.log(2), 0], rtol=1e-12)
    assert np.isnan(entropy(np.zeros(3)))


def test_a_policy_by_hand():
    """Occurrences 4 2 1 1 in three of four responses; clusters 6 to 2."""
    found = of_texts({"p": ["aa aa bb", "cc, dd."], "q": ["nothing", "aa aa bb"]}, FOUR)
    assert found["entropy"]["value"] == pytest.approx(1.213008, abs=1e-6)
    assert found["entropy_share"]["value"] == pytest.approx(0.875, rel=1e-12)
    cluster = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert found["cluster_entropy"]["value"] == pytest.approx(cluster, rel=1e-12)
    assert found["cluster_share"]["value"] == pytest.approx(cluster / math.log(2), rel=1e-12)
    assert (found["per_response"]["value"], found["responses_with"]["value"]) == (2.0, 0.75)
    assert found["occurrences"] == {"aa": 4, "bb": 2, "cc": 1, "dd": 1}


def test_intervals_are_of_a_bootstrap_over_problems():
    """Two problems, one with aa and one with bb: a quarter of the resamples each has only one of them, entropy 0."""
    found = of_texts({"p": ["aa"], "q": ["bb"]}, FOUR)["entropy"]
    assert found["value"] == pytest.approx(math.log(2)) and found["low"] == 0
    assert found["high"] == pytest.approx(math.log(2))
    same = of_texts({"p": ["aa bb"], "q": ["bb aa"]}, FOUR)["entropy"]
    assert same["low"] == same["high"] == pytest.approx(math.log(2))


def test_blocks_do_not_matter():
    rng = np.random.default_rng(0)
    means = rng.random((1203, 6))
    whole = statistics_of(FOUR)(means)
    np.testing.assert_array_equal(whole, np.stack([statistics_of(FOUR)(row) for row in means]))
    assert whole.shape == (1203, 6)


def test_without_any_phrase():
    found = of_texts({"p": ["nothing"], "q": ["nor here"]}, FOUR)
    assert found["entropy"] == {"value": None, "low": None, "high": None} and found["per_response"]["value"] == 0
    assert found["occurrences"] == {}
    one = of_texts({"p": ["aa"], "q": ["aa"]}, PhraseList("one", ("aa",), ("aa",)))
    assert one["entropy"]["value"] == 0 and one["entropy_share"]["value"] is None


def test_counts_of_problems():
    values = of_problems({"p": ["aa aa", "bb"], "q": ["-"]}, FOUR)
    np.testing.assert_array_equal(values, [[2, 1, 0, 0, 2, 2], [0, 0, 0, 0, 1, 0]])


def test_tokens_within_phrases_and_elsewhere():
    """Of two prompts: "hold on" is two tokens of entropy 1 and 3, the others have 0.5; -log p is 0.25 everywhere."""

    def response(uid: str, texts: list[str], entropies: list[float], masked: int = 0):
        made = response_of(uid, len(texts), texts=texts)
        mask = np.arange(len(texts)) >= masked
        statistics = {**made.statistics, "entropy": np.array(entropies), "log_prob": np.full(len(texts), -0.25)}
        return replace(made, statistics=statistics, response_mask=mask)

    record = record_of(
        responses=[
            response("p_0_0", ["so", " hold", " on", "."], [0.5, 1, 3, 0.5]),
            response("q_0_0", [" hold", " on", " 7"], [9, 9, 0.5], masked=2),
        ]
    )
    found = of_tokens(record, DEFAULT)
    assert found["planning_entropy"]["value"] == 2 and found["execution_entropy"]["value"] == 0.5
    assert found["planning_tokens"]["value"] == 0.4 and found["prompts"] == 2
    assert found["perplexity"]["value"] == pytest.approx(math.exp(0.25), rel=1e-12)
    assert found["planning_tokens"]["low"] == 0 and found["planning_tokens"]["high"] == 0.5


def dump(path, outputs: dict[str, list[str]]):
    rows = [
        {
            **{"input": prompt, "output": text, "gts": "1", "uid": f"u{number}_{i}_0"},
            **{"acc": 1.0, "pred": "1", "step": 0},
        }
        for number, (prompt, texts) in enumerate(outputs.items())
        for i, text in enumerate(texts)
    ]
    return write_lines(path, rows)


def test_a_run_of_the_pipeline(tmp_path):
    """Its validations, before and after; the second has a record of tokens."""
    run = tmp_path / "run"
    write_lines(run / "metrics.jsonl", [{"step": 0, "val/gsm8k/avg@2": 0.5}, {"step": 4, "val/gsm8k/avg@2": 0.5}])
    dump(run / "validation" / "0.jsonl", {"p": ["Hold on, one way to", "but wait"], "q": ["it follows that", "5"]})
    dump(run / "validation" / "4.jsonl", {"p": ["hold on", "hold on"], "q": ["hold on", "hold on"]})
    record = record_of(step=4, responses=[response_of(f"{p}_0_0", 9, seed=s) for s, p in enumerate("pq")])
    token_record.write(run, replace(record, validation=True))
    remarks: list[str] = []
    (found,) = of_source(read_source(str(run), answers=False), remarks)
    assert remarks == [] and (found["problems"], found["samples"], found["list"]) == (2, 2, "hicra")
    first, last = found["policies"]
    assert first["entropy"]["value"] == pytest.approx(math.log(4)) and first["tokens"] is None
    assert first["cluster_entropy"]["value"] == pytest.approx(1.5 * math.log(2))  # 2, 1, 1 of 4
    assert first["responses_with"]["value"] == 0.75 and first["per_response"]["value"] == 1
    assert last["entropy"]["value"] == 0 and last["occurrences"] == {"hold on": 4}
    assert last["tokens"]["prompts"] == 2
    shown = table([found])
    assert "run, validation, gsm8k (2 x 2; 36 phrases of hicra)" in shown and "1.386" in shown


def test_the_record_of_a_diverged_validation_is_left_out(tmp_path):
    run = tmp_path / "run"
    write_lines(run / "metrics.jsonl", [{"step": 4, "val/gsm8k/avg@2": 0.5}])
    dump(run / "validation" / "4.jsonl", {"p": ["hold on", "hold on"], "q": ["hold on", "hold on"]})
    responses = [response_of(f"{p}_0_0", 9, seed=s) for s, p in enumerate("pq")]
    responses[1].statistics["log_prob"][2] = -np.inf
    token_record.write(run, replace(record_of(step=4, responses=responses), validation=True))
    remarks: list[str] = []
    (found,) = of_source(read_source(str(run), answers=False), remarks)
    assert found["policies"][0]["tokens"] is None and found["policies"][0]["occurrences"] == {"hold on": 4}
    assert remarks == [
        "run: planning: tokens/validation/4.parquet, column log_prob: 1 of 18 values are NaN or infinite: the training "
        "had diverged there; look at its earlier steps, or choose another run"
    ]


def test_an_evaluation(tmp_path):
    """Only the responses to the benchmark of the series count."""
    folder = sampled_evaluation(tmp_path / "one", {"aime24": ["Aa"], "amc23": ["bb"]})
    path = folder / "samples.jsonl"
    text = path.read_text().replace("x" * 99, "but wait", 2).replace("x" * 99, "hold on")
    path.write_text(text)
    found = {one["benchmark"]: one["policies"][0] for one in of_source(read_source(str(folder)), [])}
    assert found["aime24"]["occurrences"] == {"but wait": 2} and found["amc23"]["occurrences"] == {"hold on": 2}


def test_a_run_of_the_laboratory_has_no_texts(tmp_path):
    remarks: list[str] = []
    assert of_source(read_source(str(lab_run(tmp_path / "lab", {0: [1, 2], 9: [3, 4]}))), remarks) == []
    assert remarks == ["lab: planning: needs responses: give an evaluation, or a run with validations"]


def test_a_line_that_is_no_response(tmp_path):
    run = tmp_path / "run"
    write_lines(run / "metrics.jsonl", [{"step": 0, "val/gsm8k/avg@2": 0.5}])
    path = dump(run / "validation" / "0.jsonl", {"p": ["5"]})
    source = read_source(str(run), answers=False)
    path.write_text(path.read_text().replace('"output": "5"', '"output": 5'))
    with pytest.raises(UserError, match="0.jsonl, line 1, field output: is not text: delete the file"):
        of_source(source, [])


def test_the_statistic_of_undefined_resamples():
    """A single problem has no interval."""
    (found, *_) = intervals(of_problems({"p": ["aa bb"]}, FOUR), statistics_of(FOUR))
    assert found == {"value": pytest.approx(math.log(2)), "low": None, "high": None}
