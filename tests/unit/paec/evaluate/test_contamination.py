"""Benchmark problems in the training data are named beside the scores."""

from __future__ import annotations

import json

import pytest
from evaluation_cases import command, row, write_lines

from data_prep.contract import write_parquet
from recipe.paec.common.errors import UserError
from recipe.paec.evaluate.benchmarks import load_benchmark
from recipe.paec.evaluate.results import finished_table
from recipe.paec.evaluate.targets import Target


def test_contamination_is_shown_with_the_scores(tmp_path, aime, evaluation):
    """A training file with one benchmark problem in it: named in scores.json and in the table's note."""
    lines = [{"benchmark": "aime24", "problem": f"p{i}", "sample": 0, "response": "\\boxed{100}"} for i in range(3)]
    copied = "Let $a$, $b$ and $c$ be distinct primes with $abc = 2431$. Find the remainder of $a+b+c$ modulo 9."
    rows = [row(0, "100", problem=copied), row(1, "101"), row(2, "102")]
    write_parquet(rows, aime / "aime24" / "test.parquet")
    train = [row(5, "5", source="dapo_math_17k", problem=f"Solve this: {copied}")]
    write_parquet(train, tmp_path / "train.parquet")
    file, output = write_lines(tmp_path / "s.jsonl", lines), tmp_path / "out"
    done = command(
        f"samples={file}",
        "benchmarks=[aime24]",
        f"data_root={aime}",
        f"output={output}",
        f"trained_on=[{tmp_path / 'train.parquet'}]",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((output / "scores.json").read_text())["contamination"]
    assert found["trained_on"] == [str(tmp_path / "train.parquet")]
    assert found["benchmarks"]["aime24"]["ids"] == ["p0"]
    assert found["benchmarks"]["aime24"]["avg_without"]["value"] == 0.0  # only p0 is answered right
    assert "AIME24: 1 of 3; avg@n without them 0.0 [0.0, 0.0]" in done.stdout
    assert found["ngrams"]["benchmarks"]["aime24"]["ids"] == ["p0"]
    plain = "  by the plain check (13 consecutive words in common):\n  AIME24: 1 of 3 (2 too short to check)"
    assert plain in done.stdout and plain in (output / "scores.md").read_text()

    # Of a finished evaluation: for other files it is found anew, and what was graded stays.
    before = {name: (output / name).read_text() for name in ("scores.json", "scores.md", "samples.jsonl")}
    write_parquet([row(6, "6", source="dapo_math_17k", problem="What is 1+1?")], tmp_path / "clean.parquet")
    target = Target("m", tmp_path, False, None, None, output)
    problems = {"aime24": load_benchmark(aime / "aime24" / "test.parquet")}

    def shown(*trained_on: str) -> str:
        return finished_table(evaluation("model=m", "benchmarks=[aime24]", *trained_on), output, target, problems)

    assert shown() == before["scores.md"]
    assert "AIME24: 0 of 3\n" in shown(f"trained_on=[{tmp_path / 'clean.parquet'}]")
    scores = json.loads((output / "scores.json").read_text())
    assert scores.pop("contamination")["trained_on"] == [str(tmp_path / "clean.parquet")]
    assert scores == {key: value for key, value in json.loads(before["scores.json"]).items() if key != "contamination"}
    assert "AIME24: 1 of 3;" in shown(f"trained_on=[{tmp_path / 'train.parquet'}]")
    assert {name: (output / name).read_text() for name in before} == before
    (output / "scores.md").unlink()
    assert shown().strip() == before["scores.md"].strip() and (output / "scores.md").read_text() == before["scores.md"]
    write_parquet([row(6, "6", source="dapo_math_17k", problem="What is 1+1?")], tmp_path / "train.parquet")
    assert "AIME24: 0 of 3\n" in shown(f"trained_on=[{tmp_path / 'train.parquet'}]"), "another file of the same name"
    (output / "samples.jsonl").unlink()
    with pytest.raises(UserError, match="^trained_on: .*samples.jsonl does not exist: delete scores.json there"):
        shown(f"trained_on=[{tmp_path / 'clean.parquet'}]")


def test_training_data_is_read_before_anything_expensive(tmp_path, aime):
    (tmp_path / "t.parquet").write_text("none")
    lines = [{"benchmark": "aime24", "problem": f"p{i}", "sample": 0, "response": "\\boxed{100}"} for i in range(3)]
    given = [f"samples={write_lines(tmp_path / 's.jsonl', lines)}", "benchmarks=[aime24]", f"data_root={aime}"]
    for name, words in {"t.parquet": "is not a readable parquet file", "gone.parquet": "does not exist;"}.items():
        done = command(*given, f"output={tmp_path / 'out'}", f"trained_on=[{tmp_path / name}]")
        assert done.returncode == 2 and f"error: trained_on: {tmp_path / name}: {words}" in done.stderr
        assert not (tmp_path / "out").exists()
