"""Answer entropy and distinct answers, against hand values and counts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from analysed import answered, counted, dumped, lab_run, sampled_evaluation, write_lines
from token_records import validation_of

from recipe.paec.analyse.answers import answer_entropy, distinct, of_policy, of_source, table, token_entropies
from recipe.paec.analyse.sampled import Policy
from recipe.paec.analyse.sources import Source, read_source
from recipe.paec.run import token_record


def test_hand_values():
    classes = [0] * 5 + [1] * 2 + [2]
    assert answer_entropy(classes) == pytest.approx(0.900256, abs=5e-7)
    assert answer_entropy(classes) / math.log(8) == pytest.approx(0.432932, abs=5e-7)
    assert distinct(classes) == 3


def test_samples_without_an_answer_differ():
    assert answer_entropy([None, None, None, 4]) == pytest.approx(math.log(4))
    assert distinct([None, None, None, 4]) == 1
    assert answer_entropy([None]) == answer_entropy([2, 2]) == 0 and distinct([None]) == 0


def test_against_every_sample_in_turn():
    """The entropy is the mean of -log of the share of a sample's own class."""
    random = np.random.default_rng(0)
    for _ in range(20):
        classes = random.integers(0, 4, 9).tolist()
        assert answer_entropy(classes) == pytest.approx(
            np.mean([-np.log(np.mean(np.equal(classes, c))) for c in classes])
        )


def test_a_policy():
    found = of_policy(Policy("step 0", 0, answered("AABb", "cc--", "DEdf")))
    assert found["accuracy"]["value"] == pytest.approx((3 + 0 + 2) / 12)
    assert found["distinct"]["value"] == pytest.approx((2 + 1 + 3) / 3)
    assert found["distinct_correct"]["value"] == pytest.approx((2 + 0 + 2) / 3)
    entropies = [math.log(2), math.log(2) / 2 + math.log(4) / 2, math.log(2) / 2 + math.log(4) / 2]
    assert found["answer_entropy"]["value"] == pytest.approx(np.mean(entropies))
    assert found["answer_entropy"]["low"] < found["answer_entropy"]["value"]


def test_what_was_not_recorded_is_none():
    found = of_policy(Policy("step 0", 0, counted(1, 2)))
    assert found["accuracy"]["value"] == 0.375
    assert found["answer_entropy"] is found["distinct"] is found["distinct_correct"] is None
    assert of_policy(Policy("step 0", 0, answered("A", "b")))["answer_entropy"] is None


def test_the_laboratory_has_right_answers_only(tmp_path):
    run = lab_run(tmp_path / "run", {0: [1, 2], 9: [3, 4]}, entropies={0: 0.9, 9: 0.4})
    remarks = []
    (found,) = of_source(read_source(str(run)), remarks)
    assert remarks == [
        "run, validation, gsm8k: answers: no entropy of answers: the answers were not recorded or not grouped: "
        "evaluate the checkpoints"
    ]
    assert [p["token_entropy"] for p in found["policies"]] == [0.9, 0.4]
    assert [p["distinct_correct"]["value"] for p in found["policies"]] == [1.5, 3.5]
    assert found["per_problem"] == []


def test_checkpoints_beside_the_token_entropy_of_their_run(tmp_path):
    run = tmp_path / "run"
    write_lines(run / "metrics.jsonl", [{"step": s, "actor/entropy": 1 - s / 10} for s in (1, 2, 3)])
    sampled_evaluation(run / "evaluation" / "luffy", {"aime24": ["AAaa", "bcde"]}, step=2)
    remarks = []
    (found,) = of_source(read_source(str(run)), remarks)
    (policy,) = found["policies"]
    assert remarks == [] and policy["token_entropy"] == 0.7 and policy["distinct"]["value"] == 2.5
    assert "run, luffy, aime24 (2 x 4)" in table([found])


def test_one_sample_of_an_unknown_step(tmp_path):
    remarks = []
    (found,) = of_source(
        read_source(str(sampled_evaluation(tmp_path / "a", {"aime24": ["A", "b"]}, step=None))), remarks
    )
    assert "no entropy of answers: a problem has only one sample" in remarks[0]
    assert found["policies"][0]["token_entropy"] is None and found["policies"][0]["accuracy"]["value"] == 0.5


def test_without_samples():
    remarks = []
    assert of_source(Source("x", None), remarks) == []
    assert remarks == ["x: answers: needs samples: give an evaluation, or a run with validations"]


def test_problem_by_problem(tmp_path):
    """The prompts of a validation's token record, with their answers in the same validation."""
    run, record = tmp_path / "run", validation_of(4)
    prompts = [response.input for response in record.responses]
    write_lines(run / "metrics.jsonl", [{"step": 4, "val/math500/avg@4": 0.5}])
    dumped(run / "validation" / "4.jsonl", {prompts[0]: "AAbc", "not on record": "dddd", prompts[1]: "eeee"})
    token_record.write(run, record)
    (found,) = of_source(read_source(str(run)), [])
    rows = {problem["prompt"]: problem["policies"] for problem in found["per_problem"]}
    assert rows.keys() == set(prompts)
    first = record.responses[0]
    assert rows[prompts[0]][0]["token_entropy"] == pytest.approx(first.statistics["entropy"].mean(), abs=1e-3)
    assert rows[prompts[0]][0]["answer_entropy"] == pytest.approx(1.5 * math.log(2))
    assert rows[prompts[1]][0] | {"token_entropy": 0} == {
        "label": "step 4",
        "token_entropy": 0,
        "accuracy": 0,
        "answer_entropy": 0,
        "distinct": 1,
    }
    assert "problem on record" in table([found])


def test_token_entropies_are_over_the_tokens_of_a_prompt():
    record = validation_of(1)
    a, b = record.responses
    mask = np.arange(len(a.ids)) % 2 == 0
    record = replace(record, responses=(replace(a, response_mask=mask), replace(b, input=a.input)))
    (found,) = token_entropies(record).values()
    assert found == pytest.approx(np.r_[a.statistics["entropy"][mask], b.statistics["entropy"]].mean(), rel=1e-6)


def test_the_record_of_a_diverged_validation_is_left_out(tmp_path):
    run, record = tmp_path / "run", validation_of(4)
    first, *others = record.responses
    statistics = {**first.statistics, "entropy": np.array([np.nan, *first.statistics["entropy"][1:]])}
    write_lines(run / "metrics.jsonl", [{"step": 4, "val/math500/avg@4": 0.5}])
    dumped(run / "validation" / "4.jsonl", {response.input: "AAbc" for response in record.responses})
    token_record.write(run, replace(record, responses=(replace(first, statistics=statistics), *others)))
    remarks: list[str] = []
    (found,) = of_source(read_source(str(run)), remarks)
    assert found["per_problem"] == [] and found["policies"][0]["accuracy"]["value"] == 0.5
    (remark,) = remarks
    assert remark.startswith("run: answers: tokens/validation/4.parquet, column entropy: 1 of ")
    assert remark.endswith("the training had diverged there; look at its earlier steps, or choose another run")
