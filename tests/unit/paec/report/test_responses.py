"""What is derived from rollouts, and which responses are shown."""

import json

import pytest
from report_runs import rollouts, write_run

from recipe.paec.report import responses
from recipe.paec.report.responses import read_responses, response_columns, statistics_of


def test_statistics_by_hand():
    found = statistics_of(rollouts(1, output="1+2=3"))
    assert found == {
        "mixed": 0.5,  # one of two prompts
        "distinct": 0.75,  # 2 of 2 texts, and 1 of 2
        "length_right": 5.0,
        "length_wrong": pytest.approx((2 + 4 + 4) / 3),
    }


def test_a_prompt_with_one_response_says_nothing_about_differences():
    (row, *_) = rollouts(1)
    assert statistics_of([row]) == {"length_right": 5.0}


def test_reading(tmp_path):
    found = read_responses(write_run(tmp_path / "a"), 8)
    assert sorted(found.statistics) == list(range(1, 9)) and found.remarks == ()
    assert list(found.examples) == [1, 2, 4, 6, 8]
    assert [row["score"] for row in found.examples[1]] == [1.0, 0.0, 0.0, 0.0]
    assert found.examples[1][0] == {"input": "prompt 0", "output": "1+2=3", "score": 1.0}
    assert response_columns(found)[0]["report/responses/mixed"] == 0.5


def test_steps_after_the_last_recorded_one_are_left_out(tmp_path):
    assert sorted(read_responses(write_run(tmp_path / "a"), 3).statistics) == [1, 2, 3]


def test_without_rollouts_or_a_last_step_there_are_no_responses(tmp_path):
    assert read_responses(tmp_path, 8) is None
    assert read_responses(write_run(tmp_path / "a"), None) is None


def test_lines_that_are_no_response(tmp_path):
    folder = write_run(tmp_path / "a", steps=1)
    with open(folder / "rollouts" / "1.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"input": 1, "output": "a", "score": 1}\n{"input": "a"}\n"cut o')
    found = read_responses(folder, 1)
    assert found.remarks == ("3 line(s) of the rollouts are not a response, and were left out",)
    assert found.statistics[1]["mixed"] == 0.5


def test_many_bytes_are_read_in_steps(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "a")
    size = sum(path.stat().st_size for path in (folder / "rollouts").glob("*.jsonl"))
    monkeypatch.setattr(responses, "BUDGET", size // 3)
    found = read_responses(folder, 8)
    assert sorted(found.statistics) == [1, 5]
    assert found.remarks == ("rollouts/ holds 0 MiB, so only the responses of every 4th step are read",)


def test_long_texts_are_cut(tmp_path):
    folder = write_run(tmp_path / "a", steps=1, output="x" * 5000)
    (row, *_) = read_responses(folder, 1).examples[1]
    assert row["output"] == "x" * 4000 + "\n[1000 more characters]"
    assert json.loads((folder / "rollouts" / "1.jsonl").read_text().splitlines()[0])["output"] == "x" * 5000
