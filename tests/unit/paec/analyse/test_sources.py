"""What the command line names: runs, evaluations, files of metrics."""

import json

import pytest
import yaml
from analysed import dumped, lab_run, sampled_evaluation, write_lines

from recipe.paec.analyse.sources import base_policies, read_source
from recipe.paec.common.errors import UserError


def test_a_file_of_metrics(tmp_path):
    file = write_lines(tmp_path / "none.jsonl", [{"step": 0, "accuracy": 0.5}])
    source = read_source(str(file))
    assert (source.name, source.records, source.series) == ("none", ({"step": 0, "accuracy": 0.5},), ())


def test_a_run_of_the_laboratory(tmp_path):
    source = read_source(f"mine={lab_run(tmp_path / 'none-seed1', {0: [1, 2], 5: [3, 2]})}")
    assert source.name == "mine" and len(source.records) == 2
    (series,) = source.series
    assert (series.name, series.benchmark, len(series.policies)) == ("validation", "gsm8k", 2)


def pipeline_run(folder, source="math500", scorers=None):
    write_lines(folder / "metrics.jsonl", [{"step": 0, f"val/{source}/avg@2": 0.25}])
    (folder / "config.yaml").write_text(yaml.safe_dump({"reward": {"scorers": scorers or {}}}))
    dumped(folder / "validation" / "0.jsonl", {"1 + 1": "Aa", "2 + 2": "ba"})
    return folder


def test_answers_of_a_run_are_grouped_by_its_scorer(tmp_path):
    (series,) = read_source(str(pipeline_run(tmp_path / "run"))).series
    assert [problem.classes for problem in series.policies[0].problems.values()] == [(0, 0), (0, 1)]
    assert series.benchmark == "math500"
    own = pipeline_run(tmp_path / "own", "mine", {"mine": "exact_match"})
    assert read_source(str(own)).series[0].policies[0].problems.keys() == series.policies[0].problems.keys()
    assert read_source(str(own)).series[0].policies[0].problems["1 + 1\n1\n1"].classes == (0, 0)


def test_no_graders_where_answers_are_not_needed(tmp_path):
    (series,) = read_source(str(pipeline_run(tmp_path / "run")), answers=False).series
    assert all(problem.classes is None for problem in series.policies[0].problems.values())


def test_a_set_without_scorer(tmp_path):
    source = read_source(str(pipeline_run(tmp_path / "run", "mine")))
    assert source.remarks == [
        "config.yaml, field reward.scorers: names no scorer for mine, so its answers are not grouped"
    ]
    assert source.series[0].policies[0].problems["1 + 1\n1\n1"].classes is None


def test_several_sets_in_one_file(tmp_path):
    folder = pipeline_run(tmp_path / "run")
    write_lines(folder / "metrics.jsonl", [{"step": 0, "val/math500/avg@2": 0.25, "val/aime24/avg@2": 0.25}])
    source = read_source(str(folder))
    assert "do not say to which validation set they belong" in source.remarks[0]
    assert source.series[0].benchmark == "all validation sets"


def test_the_evaluations_of_a_run(tmp_path):
    run = lab_run(tmp_path / "run", {0: [1, 2]})
    for step, text in ((0, "aa"), (5, "Aa")):
        sampled_evaluation(run / "evaluation" / "luffy" / f"step_{step}", {"aime24": [text]}, step=step)
    steps = [{"step": step, "scores": f"step_{step}/scores.json"} for step in (5, 0)]
    (run / "evaluation" / "luffy" / "curve.json").write_text(json.dumps({"run": "run", "steps": steps}))
    source = read_source(str(run))
    assert [(one.name, [p.step for p in one.policies]) for one in source.series] == [
        ("validation", [0]),
        ("luffy", [0, 5]),
    ]
    assert source.remarks == []
    (run / "evaluation" / "luffy" / "step_5" / "samples.jsonl").unlink()
    broken = read_source(str(run))
    assert len(broken.series) == 1 and "samples.jsonl: does not exist" in broken.remarks[0]


def test_an_evaluation_that_was_named_must_be_readable(tmp_path):
    folder = sampled_evaluation(tmp_path / "a", {"aime24": ["Aa"]}, run="paec")
    assert read_source(str(folder)).name == "paec"
    (folder / "samples.jsonl").unlink()
    with pytest.raises(UserError, match="does not exist"):
        read_source(str(folder))


def test_neither(tmp_path):
    with pytest.raises(UserError, match="has neither metrics.jsonl nor scores"):
        read_source(str(tmp_path))
    with pytest.raises(UserError, match="does not exist: give the folder of a run or an evaluation"):
        read_source(str(tmp_path / "missing"))


def test_the_base(tmp_path):
    folder = sampled_evaluation(tmp_path / "a", {"aime24": ["Aa"], "math500": ["ab"]})
    assert {name: policy.problems[f"{name}-0"].correct for name, policy in base_policies(str(folder)).items()} == {
        "aime24": 1,
        "math500": 0,
    }
    with pytest.raises(UserError, match="is not an evaluation"):
        base_policies(str(lab_run(tmp_path / "run", {0: [1]})))


def test_validations_that_a_resumed_run_has_discarded(tmp_path):
    """Left by a start that went on further than the checkpoint from which the next one resumed."""
    folder = pipeline_run(tmp_path / "run")
    dumped(folder / "validation" / "5.jsonl", {"1 + 1": "AA", "2 + 2": "AA"})
    for answers in (True, False):
        assert [p.step for p in read_source(str(folder), answers).series[0].policies] == [0]
    write_lines(folder / "metrics.jsonl", [{"step": step, "val/math500/avg@2": 0.25} for step in (0, 5)])
    assert [p.step for p in read_source(str(folder)).series[0].policies] == [0, 5]
