"""The tasks of the tiny model: what a line's prompts and responses are, and that these are right."""

from __future__ import annotations

import json

import pytest

from data_prep.tasks import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_the_responses_of_a_line_are_right_and_others_are_not(name, tmp_path):
    task = TASKS[name]
    task.write(tmp_path, train=20, validation=5)
    lines = [json.loads(line) for line in (tmp_path / "warm_start.jsonl").read_text().splitlines()]
    assert {line["split"] for line in lines} == {"train", "held_out"}
    for line in lines[:20]:
        assert len(task.prompts(line)) == len(set(task.prompts(line))) >= 1
        assert task.responses(line)
        assert [task.score(line, response) for response in task.responses(line)] == [1] * len(task.responses(line))
        assert task.score(line, "") == task.score(line, "no answer") == 0
