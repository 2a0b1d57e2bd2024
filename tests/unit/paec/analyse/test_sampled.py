"""Samples by problem: of evaluations, of the laboratory's counts, of validation files."""

import json

import pytest
from analysed import answered, dumped, sampled_evaluation, write_lines

from recipe.grading.pool import GraderPool
from recipe.paec.analyse.sampled import Policy, of_counts, of_dumps, of_evaluations, pair_of, problem_of
from recipe.paec.common.errors import UserError
from recipe.paec.compare.evaluations import read_run


def scored(folder):
    return read_run(folder / "scores.json")


def test_a_problem():
    problem = problem_of([True, True, False, True], [0, 1, 2, None])
    assert (problem.samples, problem.correct, problem.distinct_correct) == (4, 3, 2)
    assert problem_of([True], None).distinct_correct is None


def test_an_evaluation(tmp_path):
    folder = sampled_evaluation(tmp_path / "a", {"math500": ["Aab-", "bbbb"], "aime24": ["AAAA", "ABcd"]}, step=5)
    series = {one.benchmark: one for one in of_evaluations("protocol", [(5, scored(folder))])}
    assert series.keys() == {"math500", "aime24"}
    (policy,) = series["math500"].policies
    assert (policy.label, policy.step, series["math500"].name) == ("step 5", 5, "protocol")
    first = policy.problems["math500-0"]
    assert first.verdicts == (True, False, False, False) and first.classes == (0, 0, 1, None)
    assert series["aime24"].policies[0].problems["aime24-1"].distinct_correct == 2


def test_an_evaluation_without_its_samples(tmp_path):
    folder = sampled_evaluation(tmp_path / "a", {"math500": ["Aa", "bb"]})
    (folder / "samples.jsonl").unlink()
    with pytest.raises(UserError, match="samples.jsonl: does not exist: evaluate the model"):
        of_evaluations("a", [(None, scored(folder))])


def test_checkpoints_have_the_same_benchmarks(tmp_path):
    one = sampled_evaluation(tmp_path / "1", {"math500": ["Aa"], "aime24": ["Aa"]})
    two = sampled_evaluation(tmp_path / "2", {"math500": ["Aa"]})
    with pytest.raises(UserError, match="c: some of its evaluations have no samples of aime24"):
        of_evaluations("c", [(1, scored(one)), (2, scored(two))])


@pytest.mark.parametrize("line", ["{", '{"problem": "x"}', '{"benchmark": "math500", "problem": "p", "sample": 0}'])
def test_a_bad_sample(tmp_path, line):
    folder = sampled_evaluation(tmp_path / "a", {"math500": ["Aa"]})
    (folder / "samples.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="samples.jsonl"):
        of_evaluations("a", [(None, scored(folder))])


def test_counts_of_the_laboratory(tmp_path):
    rows = [
        {"step": step, "split": split, "samples": 4, "correct": [step, 3], "distinct": [0, 2]}
        for step, split in ((2, "validation"), (0, "validation"), (2, "held_out"))
    ]
    series = of_counts(write_lines(tmp_path / "problems.jsonl", rows), "gsm8k")
    assert [(one.name, [p.step for p in one.policies]) for one in series] == [("validation", [0, 2]), ("held_out", [2])]
    problem = series[0].policies[1].problems["0"]
    assert (problem.samples, problem.correct, problem.distinct_correct, problem.classes) == (4, 2, 0, None)


@pytest.mark.parametrize("change", [{"correct": [5]}, {"samples": 0}, {"distinct": [1, 1]}, {"correct": []}])
def test_bad_counts(tmp_path, change):
    row = {"step": 0, "split": "validation", "samples": 4, "correct": [1], "distinct": [1], **change}
    with pytest.raises(UserError, match=r"problems.jsonl, line 1: is not a validation's counts"):
        of_counts(write_lines(tmp_path / "problems.jsonl", [row]), "gsm8k")


def test_a_torn_line_of_a_run_costs_that_line_only(tmp_path):
    """The counts of a finished run are nowhere else: the remedy must not be to delete them all."""
    row = {"step": 0, "split": "validation", "samples": 4, "correct": [1], "distinct": [1]}
    file = write_lines(tmp_path / "problems.jsonl", [row])
    file.write_text(file.read_text() + '{"step": 2, "spl')
    with pytest.raises(
        UserError, match=r"problems.jsonl, line 2: is not JSON .*: delete that line, and keep the others"
    ):
        of_counts(file, "gsm8k")


def test_validation_files(tmp_path):
    dumped(tmp_path / "0.jsonl", {"1 + 1": "Ab", "2 + 2": "--"})
    dumped(tmp_path / "10.jsonl", {"2 + 2": "A", "1 + 1": "AA"}, mark="other")
    (series,) = of_dumps(tmp_path, "gsm8k")
    first, last = series.policies
    assert (first.step, last.step) == (0, 10) and first.problems.keys() == last.problems.keys()
    both = {base.prompt: (base, trained) for base, trained in pair_of(first, last, "run")}
    assert both["1 + 1"][0].verdicts == (True, False) and both["1 + 1"][1].verdicts == (True, True)
    assert both["2 + 2"][1].verdicts == (True, False), "the lost sample counts as wrong"
    assert both["1 + 1"][0].classes is None


def test_answers_of_validation_files_are_grouped(tmp_path):
    dumped(tmp_path / "0.jsonl", {"1 + 1": "Ab", "2 + 2": "c-"})
    asked = []

    def grouped(problems):
        asked.extend(problems)
        return [[0, 1], [0, None]]

    (series,) = of_dumps(tmp_path, "gsm8k", grouped)
    assert asked == [("gsm8k", ["97", "98"]), ("gsm8k", ["99", None])]
    assert [problem.classes for problem in series.policies[0].problems.values()] == [(0, 1), (0, None)]


def test_right_expressions_are_different_although_their_class_is_one(tmp_path):
    """All right answers to a countdown problem have its target as their value."""
    answers = [("1+2+3", 1.0), ("3 + 2 + 1", 1.0), ("3+2+1", 1.0), ("6", 0.0), ("", 0.0)]
    rows = [
        {"uid": f"a_{i}_0", "input": "1 2 3 > 6", "gts": "6", "pred": pred, "acc": acc}
        for i, (pred, acc) in enumerate(answers)
    ]
    write_lines(tmp_path / "0.jsonl", rows)
    with GraderPool(workers=1) as pool:
        (series,) = of_dumps(tmp_path, "reasoning_gym/countdown", pool.groups)
    (problem,) = series.policies[0].problems.values()
    assert problem.classes == (0, 0, 0, 0, None) and problem.distinct_correct == 2
    folder = sampled_evaluation(tmp_path / "e", {"reasoning_gym/countdown": ["AAaa"]})
    (evaluated,) = of_evaluations("e", [(None, scored(folder))])
    assert [one.distinct_correct for one in evaluated.policies[0].problems.values()] == [None], "texts are not read"


def test_two_problems_with_one_prompt(tmp_path):
    rows = [
        {"uid": f"{uid}_0_0", "input": "1 + 1", "gts": "2", "pred": "2", "acc": acc}
        for uid, acc in (("a", 1.0), ("b", 0.0))
    ]
    write_lines(tmp_path / "0.jsonl", rows)
    (series,) = of_dumps(tmp_path, "gsm8k")
    assert [problem.correct for problem in series.policies[0].problems.values()] == [1, 0]


def test_no_validation_files(tmp_path):
    assert of_dumps(tmp_path / "validation", "gsm8k") == []


@pytest.mark.parametrize("text", ["", json.dumps({"uid": "a_0_0", "input": "x"}) + "\n", "[1]\n"])
def test_a_bad_validation_file(tmp_path, text):
    (tmp_path / "0.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"0.jsonl.*: delete"):
        of_dumps(tmp_path, "gsm8k")


def test_pairs_have_the_same_problems():
    policies = Policy("step 0", 0, answered("Aa", "Bb")), Policy("step 4", 4, answered("Aa"))
    with pytest.raises(UserError, match=r"run: 1 problem\(s\) were answered by only one of step 0 and step 4"):
        pair_of(*policies, "run")
