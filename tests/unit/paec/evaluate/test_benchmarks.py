"""Benchmark files: rows by hand, names and paths, and what is refused."""

from __future__ import annotations

import pytest
from evaluation_cases import row

from data_prep.contract import write_parquet
from recipe.paec.common.errors import UserError
from recipe.paec.evaluate import benchmarks
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.evaluate.folder import digests


def test_benchmark_by_hand(aime):
    problems = benchmarks.load_benchmark(aime / "aime24" / "test.parquet")
    assert problems[1] == Problem(
        benchmark="aime24",
        id="p1",
        prompt=[{"role": "user", "content": "Problem 1?\n\nBox it."}],
        ground_truth="101",
        text="Problem 1?",
    )


def test_benchmark_without_ids_or_text(tmp_path):
    bare = [row(i) for i in range(2)]
    for one in bare:
        del one["extra_info"]["id"], one["extra_info"]["problem"]
    write_parquet(bare, tmp_path / "b.parquet")
    assert [(p.id, p.text) for p in benchmarks.load_benchmark(tmp_path / "b.parquet")] == [
        ("aime24-0", "Problem 0?\n\nBox it."),
        ("aime24-1", "Problem 1?\n\nBox it."),
    ]


@pytest.mark.parametrize(
    "rows, words",
    [
        ([row(0), row(1, source="gsm8k")], ["mixes the data sources aime24, gsm8k"]),
        ([row(0), row(1, id="p0")], ["extra_info.id", "'p0' occurs more than once"]),
        (
            [row(0), row(1, truth="\\boxed{3}")],
            ["row 1, field reward_model.ground_truth", "give the content of the box only"],
        ),
    ],
)
def test_bad_benchmarks(tmp_path, rows, words):
    write_parquet(rows, tmp_path / "b.parquet")
    with pytest.raises(UserError) as raised:
        benchmarks.load_benchmark(tmp_path / "b.parquet")
    assert all(word in str(raised.value) for word in words)


def test_benchmarks_by_name_and_path(aime, evaluation):
    path = aime / "aime24" / "test.parquet"
    by_name = evaluation("model=m", "benchmarks=[aime24]", f"data_root={aime}")
    assert benchmarks.find_benchmarks(by_name) == {"aime24": path}
    both = evaluation("model=m", f"benchmarks=[aime24,{path}]", f"data_root={aime}")
    with pytest.raises(UserError, match="contains aime24, and so does another file:"):
        benchmarks.load_problems(benchmarks.find_benchmarks(both))
    absent = evaluation("model=m", "benchmarks=[math500]", f"data_root={aime}")
    with pytest.raises(UserError, match="python -m data_prep math500 --output"):
        benchmarks.find_benchmarks(absent)


def test_a_benchmark_nobody_can_grade(tmp_path):
    write_parquet([row(0, source="riddles")], tmp_path / "b.parquet")
    with pytest.raises(UserError, match="no scorer for data_source 'riddles'"):
        benchmarks.load_problems({"b": tmp_path / "b.parquet"})


def test_problems_of_samples_without_a_benchmark():
    one = {"benchmark": "math", "problem": "b", "sample": 0, "prompt": "q", "ground_truth": "1"}
    found = benchmarks.problems_in([one, {**one, "sample": 1}, {**one, "problem": "a", "prompt": "r"}])
    turns = [[{"role": "user", "content": text}] for text in "rq"]
    assert found == {"math": [Problem("math", "a", turns[0], "1", "r"), Problem("math", "b", turns[1], "1", "q")]}
    other = benchmarks.problems_in([{**one, "ground_truth": "2"}])
    assert digests({"math": found["math"][1:]}, {})["math"] != digests(other, {})["math"]


@pytest.mark.parametrize(("truth", "kind"), [(["a", "b"], "list"), ({"a": 1}, "dict"), (5, None), (0.5, None)])
def test_a_reference_is_text_or_a_number(tmp_path, truth, kind):
    write_parquet([row(0, truth, source="quiz")], tmp_path / "b.parquet")
    scorers = {"quiz": "my_pkg:score"}
    if kind is None:
        assert benchmarks.load_benchmark(tmp_path / "b.parquet", scorers)[0].ground_truth == str(truth)
        return
    words = f"b.parquet, row 0, field reward_model.ground_truth: {kind} instead of a string: prepare the file again"
    with pytest.raises(UserError, match=words):
        benchmarks.load_benchmark(tmp_path / "b.parquet", scorers)
