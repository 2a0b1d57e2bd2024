"""Evaluations in a report."""

import json

import pytest
from report_runs import write_run

from recipe.paec.common.errors import UserError
from recipe.paec.report.benchmarks import (
    facts_of,
    is_evaluation,
    of_run,
    provenance,
    read_scored,
    section,
    with_own_names,
)
from recipe.paec.report.command import content_of, main
from recipe.paec.report.runs import read_run
from recipe.paec.scoring.estimators import bootstrap_interval
from recipe.paec.scoring.scores import score


def evaluation(folder, counts, run=None, step=None):
    """A folder with the scores of a model that got `counts` of two samples right, problem by problem of AIME24."""
    samples = [
        {
            **{"benchmark": "aime24", "problem": str(problem), "sample": i, "group": int(i >= count)},
            **{"correct": i < count, "strict": i < count, "status": "ok", "finish_reason": "stop", "tokens": 10},
        }
        for problem, count in enumerate(counts)
        for i in range(2)
    ]
    made = {"protocol": {"name": "luffy", "samples": 2}, "model": "m", "run": run, "step": step, "benchmarks": {}}
    made |= {"generation": None, "grader": {"time_limit": 10.0}, "versions": {"vllm": "0.1", "torch": None}}
    folder.mkdir(parents=True)
    content = {**score(samples), "provenance": made, "contamination": None}
    (folder / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def curve(folder, run, counts):
    """Evaluations of several checkpoints: step -> counts."""
    for step, of_step in counts.items():
        evaluation(folder / f"step_{step}", of_step, run, step)
    steps = [{"step": step, "scores": f"step_{step}/scores.json"} for step in counts]
    (folder / "curve.json").write_text(json.dumps({"run": run, "steps": steps}), encoding="utf-8")
    return folder


def test_one_evaluation(tmp_path):
    one = read_scored(evaluation(tmp_path / "e", [2, 1, 0, 0], run="paec", step=10))
    assert one.name == "paec" and one.steps[0][0] == 10 and read_scored(tmp_path / "e", "mine").name == "mine"
    (chart,) = section([one], {})["charts"]
    (line,) = chart["series"]
    assert (chart["title"], line["label"], line["xs"]) == ("AIME24: pass@k over k", "paec, step 10", [1, 2])
    assert line["ys"] == [pytest.approx(0.375), 0.5]
    expected = bootstrap_interval([1, 0.5, 0, 0])
    assert (line["lows"][0], line["highs"][0]) == pytest.approx((expected.low, expected.high))


def test_a_curve(tmp_path):
    one = read_scored(curve(tmp_path / "c", "paec", {20: [2, 2], 10: [2, 0]}))
    over_steps, over_k = section([one], {"none": 0, "paec": 3})["charts"]
    (line,) = over_steps["series"]
    assert (over_steps["title"], over_steps["x"], line["xs"], line["ys"]) == (
        *("AIME24: avg@n", "checkpoint step"),
        *([10, 20], [0.5, 1.0]),
    )
    assert line["colour"] == over_k["series"][0]["colour"] == 3, "the colour of its run"


def test_other_evaluations_have_other_colours(tmp_path):
    found = [read_scored(evaluation(tmp_path / name, [1, 0])) for name in ("a", "b")]
    (chart,) = section(found, {"none": 0, "paec": 1})["charts"]
    assert [line["colour"] for line in chart["series"]] == [2, 3]


def test_facts(tmp_path):
    found = {
        fact.label: (fact.value, fact.detail) for fact in facts_of(read_scored(evaluation(tmp_path / "e", [2, 2])))
    }
    assert found == {
        "step": ("-", ""),
        "AIME24 avg@2": ("100.0 [100.0, 100.0]", "2 problems"),
        "AIME24 maj@2": ("100.0 [100.0, 100.0]", "2 problems"),
        "AIME24 pass@2": ("100.0 [100.0, 100.0]", "2 problems"),
    }


def test_provenance(tmp_path):
    found = {fact.label: fact.value for fact in provenance(read_scored(evaluation(tmp_path / "e", [2, 2])))}
    assert found == {
        **{"directory": str(tmp_path / "e"), "model": "m", "protocol": "name luffy, samples 2"},
        **{"grader": "time_limit 10.0", "vllm": "0.1"},
    }


def test_those_of_a_run_are_found(tmp_path):
    folder = write_run(tmp_path / "a")
    curve(folder / "evaluation" / "luffy", "a", {4: [1, 0], 8: [2, 0]})
    evaluation(folder / "evaluation" / "other", [1, 1], "a", 8)
    (folder / "evaluation" / "broken").mkdir()
    (folder / "evaluation" / "broken" / "scores.json").write_text("{")
    found, remarks = of_run(read_run(folder))
    assert [len(one.steps) for one in found] == [2, 1]
    assert [one.name for one in with_own_names(found)] == ["a, luffy", "a, other"]
    assert with_own_names(found[:1]) == found[:1]
    (remark,) = remarks
    assert remark.startswith(f"{folder / 'evaluation' / 'broken' / 'scores.json'}: not valid JSON")
    content = content_of([(None, read_run(folder))])
    assert [one.name for one in content.scored] == ["a, luffy", "a, other"]
    assert [one["id"] for one in content.sections()][:4] == ["entropy", "plane", "validation", "benchmarks"]


def test_a_report_of_evaluations_only(tmp_path):
    folders = [str(evaluation(tmp_path / name, [2, 1, 0])) for name in ("a", "b")]
    assert main([*folders, "--output", str(tmp_path / "out.html"), "--figures", str(tmp_path / "figures")]) == 0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<title>a \N{MIDDLE DOT} b: PAEC report</title>" in page and "50.0 [" in page
    assert 'id="explore"' not in page and 'id="settings"' not in page
    assert (tmp_path / "figures" / "benchmarkk-0.csv").is_file()


@pytest.mark.parametrize(
    "content, error",
    [
        ("{}", "{0}/curve.json: not a curve (KeyError('run')): evaluate all checkpoints of the run again"),
        ('{"run": "a", "steps": []}', "{0}/curve.json, field steps: is empty: evaluate the checkpoints of the run"),
    ],
)
def test_broken_curves(tmp_path, content, error):
    (tmp_path / "curve.json").write_text(content)
    assert is_evaluation(tmp_path)
    with pytest.raises(UserError) as raised:
        read_scored(tmp_path)
    assert raised.value.errors == [error.format(tmp_path)]
