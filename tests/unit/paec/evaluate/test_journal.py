"""The journal survives a kill, and a damaged line of it is named."""

from __future__ import annotations

import json

import pytest
from evaluation_cases import line

from recipe.paec.common.errors import UserError
from recipe.paec.evaluate import benchmarks
from recipe.paec.evaluate.generation_process import missing
from recipe.paec.evaluate.journal import journal_keys, read_journal, repair_journal


def test_journal_survives_a_kill(tmp_path, aime):
    path = tmp_path / "journal.jsonl"
    whole = [line("p0", 1), line("p2", 0)]
    path.write_text("".join(json.dumps(record) + "\n" for record in whole) + '{"benchmark": "aime24", "pro')
    assert list(read_journal(path)) == [("aime24", "p0", 1), ("aime24", "p2", 0)]
    repair_journal(path)
    with open(path, "a") as stream:
        stream.write(json.dumps(line("p1", 1)) + "\n")
    problems = benchmarks.load_benchmark(aime / "aime24" / "test.parquet")
    left = [(problem.id, sample) for problem, sample in missing(problems, {"aime24": 2}, path)]
    assert left == [("p0", 0), ("p1", 0), ("p2", 1)]


@pytest.mark.parametrize(
    "bad", [b"{half", b"\0" * 9, b"\xff{}", b"[1]", b'{"benchmark": "aime24", "problem": "p0"}', b""]
)
def test_a_damaged_line_of_a_journal_is_named(tmp_path, bad):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(
        json.dumps(line("p0", 0)).encode() + b"\n" + bad + b"\n" + json.dumps(line("p1", 0)).encode() + b"\n"
    )
    for read in (read_journal, journal_keys):
        with pytest.raises(UserError, match=r"journal.jsonl, line 2: incomplete response .*: delete this line, and"):
            read(path)
    repair_journal(path)
    assert path.read_bytes().count(b"\n") == 3  # only a half-written end is cut off


def test_no_journal_is_an_empty_one(tmp_path, aime):
    repair_journal(tmp_path / "none")
    problems = benchmarks.load_benchmark(aime / "aime24" / "test.parquet")
    assert len(missing(problems, {"aime24": 4}, tmp_path / "none")) == 12
