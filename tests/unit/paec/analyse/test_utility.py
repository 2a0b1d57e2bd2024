"""Reasoning utility: steps, what is made of the entropies, and which samples are read; without a model."""

import json

import numpy as np
import pytest
from analysed import lab_run, sampled_evaluation, write_lines

from recipe.paec.analyse.sources import read_source
from recipe.paec.analyse.utility import (
    QUANTITIES,
    Sample,
    Scored,
    Settings,
    of_responses,
    of_source,
    quantities,
    step_ends,
    table,
)
from recipe.paec.common.errors import UserError


@pytest.mark.parametrize(
    "border, text, steps",
    [
        ("paragraph", "a\n\nb b\n \n\nc", ["a\n\n", "b b\n \n\n", "c"]),
        ("paragraph", "one\ntwo", ["one\ntwo"]),
        ("paragraph", "\n\na\n\n", ["\n\na\n\n"]),
        ("line", "a\n\nb\nc", ["a\n\n", "b\n", "c"]),
        ("sentence", "It is 1.50 each. So 3!  The answer is 3.", ["It is 1.50 each. ", "So 3!  ", "The answer is 3."]),
        ("line", "", []),
        ("line", " \n", []),
    ],
)
def test_steps(border, text, steps):
    ends = step_ends(text, border)
    assert [text[start:end] for start, end in zip([0, *ends], ends, strict=False)] == steps


def test_many_borders_take_linear_time():
    assert len(step_ends("a\n\n" * 100_000, "paragraph")) == 100_000
    assert step_ends("\n" * 300_000 + "a", "paragraph") == [300_001]


def test_one_response():
    """2.1 1.7 1.2 0.6: three changes of -0.4, -0.5, -0.6, a slope of -0.5, all steps falling."""
    found = dict(zip(QUANTITIES, quantities(Scored((2.1, 1.7, 1.2, 0.6), (3.0, 2.0, 1.5, 0.25))), strict=True))
    expected = {
        "steps": 3,
        "before": 2.1,
        "after": 0.6,
        "change": -0.5,
        "slope": -0.5,
        "falling": 1,
    }
    assert found == pytest.approx({**expected, "surprisal_before": 3, "surprisal_after": 0.25}, abs=1e-12)
    rising = dict(zip(QUANTITIES, quantities(Scored((1.0, 1.0, 2.0), (1.0,) * 3)), strict=True))
    assert (rising["change"], rising["slope"], rising["falling"]) == (0.5, 0.5, 0)


def sample(problem: str, correct: bool, response: str = "a\n\nb") -> Sample:
    return Sample(problem, "1 + 1?", response, "2", correct)


def test_responses_count_alike_and_problems_are_resampled():
    """Three right responses, two of them to p, and a wrong one; what a model cannot read is left out."""
    samples = [sample("p", True), sample("p", True), sample("q", True), sample("q", False), sample("q", False)]
    flat = (1.0, 1.0, 1.0)
    scored = [Scored((2.0, 1.0, 0.0), flat), Scored((2.0, 1.5, 1.0), flat), Scored((1.0, 1.0, 0.0), flat)]
    found = of_responses(samples, [*scored, Scored((1.0, 2.0), (1.0, 1.0)), None])
    right, wrong = found["right"], found["wrong"]
    assert right["responses"] == 3 and wrong["responses"] == 1
    assert right["after"]["value"] == pytest.approx(1 / 3) and right["change"]["value"] == pytest.approx(-2 / 3)
    # A resample is p twice, q twice or both: the means of p (0.5), of q (0) or of all three.
    assert (right["after"]["low"], right["after"]["high"]) == (0, 0.5)
    assert wrong["falling"]["value"] == 0 and wrong["steps"]["value"] == 1
    assert wrong["steps"]["low"] is None  # a quarter of the resamples has no wrong response
    assert of_responses(samples[:1], scored[:1])["wrong"] is None
    assert of_responses(samples[:1], [Scored((1.0,), (1.0,))])["right"] is None  # a single step


def graded(folder, responses: list[str]):
    """An evaluation of one benchmark: a problem with a right and a wrong response for each text."""
    path = sampled_evaluation(folder, {"aime24": ["Ab"] * len(responses)})
    rows = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row.update(prompt=f"question {number // 2}", ground_truth="7", response=responses[number // 2])
    write_lines(path / "samples.jsonl", rows)
    return path


def scorer(samples):
    """h is 1 at first, and one over the number of its step after it; the last step is not read."""
    ends = [step_ends(of.response, "paragraph")[:-1] for of in samples]
    return [Scored(*[(1.0, *(1 / (1 + j) for j in range(1, len(of) + 1)))] * 2) for of in ends]


def test_an_evaluation(tmp_path):
    path, remarks = graded(tmp_path / "evaluation", ["a\n\nb\n\nc", "c\n\nd", "   "]), []
    settings = Settings("tiny", responses=1)
    (found,) = of_source(read_source(str(path)), remarks, settings, scorer)
    assert remarks == []
    assert found["problems"] == 2 and found["wrong"] is None  # the first sample is right; one problem has no text
    assert found["right"]["responses"] == 2
    assert found["right"]["after"]["value"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found["right"]["before"]["value"] == 1
    assert (found["model"], found["border"]) == ("tiny", "paragraph")
    lines = table([found]).splitlines()
    assert len(lines) == 3 and "2 right" in lines[2] and "0.417 [0.333, 0.500]" in lines[2]
    (both,) = of_source(read_source(str(path)), remarks, Settings("tiny", responses=2), scorer)
    assert both["wrong"]["responses"] == 2
    assert np.isclose(both["wrong"]["after"]["value"], found["right"]["after"]["value"])


def test_what_is_missing_is_reported(tmp_path):
    path, remarks = graded(tmp_path / "evaluation", ["a", "c"]), []
    source, settings = read_source(str(path)), Settings("tiny")
    assert of_source(source, remarks, settings, scorer) == []
    assert remarks == [
        "evaluation: utility: 4 of 4 responses are a single step and left out: another --border of paragraph, line, "
        "sentence may divide them (now paragraph)"
    ]
    blank, remarks = read_source(str(graded(tmp_path / "blank", [" ", ""]))), []
    assert of_source(blank, remarks, settings, scorer) == []
    assert remarks == ["blank: utility: no response to aime24 has text and a reference"]
    run = read_source(str(lab_run(tmp_path / "run", {0: [1, 2], 9: [3, 4]})))
    remarks.clear()
    assert of_source(run, remarks, settings, scorer) == []
    assert remarks == ["run: utility: needs an evaluation, with its samples: paec evaluate"]
    remarks.clear()
    long = graded(tmp_path / "long", ["a\n\nb", "c"])
    (found,) = of_source(read_source(str(long)), remarks, settings, lambda samples: [None, *scorer(samples)[1:]])
    assert found["right"] is None and found["wrong"]["responses"] == 1
    assert remarks[0] == "long: utility: 1 of 4 responses are too long for the model"
    assert remarks[1].startswith("long: utility: 2 of 4 responses are a single step and left out")


def test_references_that_are_no_answers(tmp_path):
    path, remarks = sampled_evaluation(tmp_path / "evaluation", {"reasoning_gym/countdown": ["Ab"]}), []
    assert of_source(read_source(str(path)), remarks, Settings("tiny"), scorer) == []
    sentence = "reasoning_gym/countdown is left out: its references describe a problem, not an answer"
    assert remarks == [f"evaluation: utility: {sentence}"]


def test_a_bad_sample_is_named(tmp_path):
    path = sampled_evaluation(tmp_path / "evaluation", {"aime24": ["Ab"]})
    with pytest.raises(UserError, match=r"samples.jsonl, line 1, field prompt: is not text: evaluate the model again"):
        of_source(read_source(str(path)), [], Settings("tiny"), scorer)
