"""Countdown with four numbers: right traces of bounded length, disjoint splits, and a task of `data_prep.tiny`."""

from __future__ import annotations

import json
import re

import pytest

from data_prep import countdown, countdown_four
from data_prep.contract import validate_rows
from data_prep.tasks import TASKS
from recipe.grading import countdown as scorer


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    message = countdown_four.write(folder, train=40, validation=10)
    return folder, message, [json.loads(line) for line in (folder / "warm_start.jsonl").read_text().splitlines()]


def test_every_problem_has_four_numbers(written):
    folder, message, lines = written
    assert "40 training and 10 validation rows, 4000 problems for the warm start, and 64 held out from it" in message
    for name in ("train", "validation"):
        for row in validate_rows(folder / f"{name}.parquet").prompt:
            assert re.fullmatch(r"[1-9]( [1-9]){3} > \d\d?", row[0]["content"])
    assert {len(line["numbers"]) for line in lines} == {4}


def test_traces_are_right_and_fit(written):
    """A trace ends in an expression of all four numbers with the target's value, by the pipeline's scorer."""
    lines = written[2]
    assert max(len(trace) for line in lines for trace in line["traces"]) < TASKS["countdown_four"].max_response
    for line in lines[:: len(lines) // 40]:
        assert line["traces"] == sorted(set(line["traces"]))
        for trace in line["traces"][:: max(1, len(line["traces"]) // 5)]:
            expression = trace.rpartition(";")[2]
            assert scorer.value(expression) == line["target"]
            assert sorted(map(int, re.findall(r"\d+", expression))) == sorted(line["numbers"])
            assert countdown_four.score(line, trace) == 1.0
    assert countdown_four.score(lines[0], lines[1]["traces"][0]) == 0.0


def test_splits_share_no_problem(written):
    folder, _, lines = written
    pools = {
        name: {(tuple(line["numbers"]), line["target"]) for line in lines if line["split"] == name}
        for name in ("train", "held_out")
    }
    for name in ("train", "validation"):
        truths = [
            json.loads(row["ground_truth"])["metadata"]
            for row in validate_rows(folder / f"{name}.parquet").reward_model
        ]
        pools[f"{name} rows"] = {(tuple(sorted(truth["numbers"])), truth["target"]) for truth in truths}
    assert [len(pools[name]) for name in ("train", "held_out", "validation rows")] == [4000, 64, 10]
    assert not pools["held_out"] & (pools["train"] | pools["train rows"] | pools["validation rows"])
    assert not pools["validation rows"] & (pools["train"] | pools["train rows"])
    assert pools["train rows"] - pools["train"], "most training problems are new to the policy"


def test_the_same_seed_gives_the_same_files(written, tmp_path):
    countdown_four.write(tmp_path, train=40, validation=10)
    assert (tmp_path / "warm_start.jsonl").read_bytes() == (written[0] / "warm_start.jsonl").read_bytes()


def test_all_problems():
    assert len(countdown.solvable(4)) == 20387
