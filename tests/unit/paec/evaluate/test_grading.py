"""Responses of a journal are joined with their problems, graded, and grouped by equivalent answers."""

from __future__ import annotations

import json

from evaluation_cases import line, write_lines

from recipe.grading.pool import GraderPool
from recipe.paec.evaluate import benchmarks, grading


def test_the_journal_in_benchmark_order(aime, tmp_path):
    """As many responses of a problem as there are without a gap, whatever the order of the journal's lines."""
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    places = [("p2", 0), ("p0", 1), ("p0", 0), ("p1", 1), ("p0", 3)]
    journal = write_lines(tmp_path / "journal.jsonl", [line(*place) for place in places])
    found = grading.journaled(problems, journal)
    assert [(one["problem"], one["sample"]) for one in found] == [("p0", 0), ("p0", 1), ("p2", 0)]
    assert found[2] == {
        **line("p2", 0),
        "prompt": "Problem 2?\n\nBox it.",
        "ground_truth": "102",
    }


def test_verdicts_and_groups_of_each_problem(capsys):
    def sample(problem: str, index: int, response: str, truth: str) -> dict:
        return {"benchmark": "aime24", "problem": problem, "sample": index, "response": response, "ground_truth": truth}

    samples = [
        sample("a", 0, "\\boxed{0.5}", "1/2"),
        sample("b", 0, "\\boxed{7}", "8"),
        sample("a", 1, "\\boxed{\\frac{1}{2}}", "1/2"),
        sample("a", 2, "no answer", "1/2"),
        sample("a", 3, "\\boxed{7}", "1/2"),
        sample("a", 4, "\\boxed{1/0}", "1/2"),
    ]
    given = json.loads(json.dumps(samples))
    with GraderPool(1) as pool:
        graded = grading.grade(samples, pool)
    assert samples == given, "the samples themselves are not changed"
    assert [one["correct"] for one in graded] == [True, False, True, False, False, False]
    assert [one["group"] for one in graded] == [0, 0, 0, None, 1, 2], "numbered within a problem"
    assert [one["status"] for one in graded] == ["ok", "ok", "ok", "unparsable", "ok", "ok"]
    assert capsys.readouterr().out.startswith("graded 6 responses in ")
    assert [len(group) for group in grading.by_problem(graded).values()] == [5, 1]
