"""The counts of every training prompt: what is written, read back, and dropped on resume."""

from __future__ import annotations

import json

import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.run import prompt_record
from recipe.paec.run.log import truncate_metrics
from recipe.paec.run.prompt_record import PROMPTS_FILE


def test_a_line_for_each_step(tmp_path):
    prompt_record.append(tmp_path, 1, 0, {("gsm8k", 12): (3, 8), ("gsm8k", 2): (0, 8), ("a/b", 2): (8, 8)})
    prompt_record.append(tmp_path, 2, 1, {("gsm8k", 12): (5, 8)})
    lines = (tmp_path / PROMPTS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "epoch": 0, "prompts": {"a/b": {"2": [8, 8]}, "gsm8k": {"2": [0, 8], "12": [3, 8]}}},
        {"step": 2, "epoch": 1, "prompts": {"gsm8k": {"12": [5, 8]}}},
    ]
    counts, steps = prompt_record.read(tmp_path)
    assert steps == [1, 2]
    assert counts == {("a/b", 2): {0: (8, 8)}, ("gsm8k", 2): {0: (0, 8)}, ("gsm8k", 12): {0: (3, 8), 1: (5, 8)}}


def test_two_steps_of_an_epoch_add_up(tmp_path):
    prompt_record.append(tmp_path, 1, 0, {("a", 0): (1, 4)})
    prompt_record.append(tmp_path, 2, 0, {("a", 0): (4, 4)})
    assert prompt_record.read(tmp_path)[0] == {("a", 0): {0: (5, 8)}}


def test_a_resumed_run_repeats_the_steps_after_its_checkpoint(tmp_path):
    """Killed in the middle of the line of step 4, resumed from the checkpoint of step 2: no step counts twice."""
    for step in (1, 2, 3):
        prompt_record.append(tmp_path, step, step - 1, {("a", 0): (step, 4)})
    with open(tmp_path / PROMPTS_FILE, "a") as stream:
        stream.write('{"step":4,"epoch":3,"pro')
    assert prompt_record.read(tmp_path)[1] == [1, 2, 3]
    truncate_metrics(tmp_path / PROMPTS_FILE, 2)
    prompt_record.append(tmp_path, 3, 2, {("a", 0): (0, 4)})
    assert prompt_record.read(tmp_path) == ({("a", 0): {0: (1, 4), 1: (2, 4), 2: (0, 4)}}, [1, 2, 3])


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 2}',
        "[]",
        '{"step": 2, "epoch": 0, "prompts": {"a": {"x": [1, 2]}}}',
        '{"step": 2, "epoch": 0, "prompts": {"a": {"1": [3, 2]}}}',
        '{"step": 2, "epoch": 0, "prompts": {"a": {"1": [0, 0]}}}',
        '{"step": 2, "epoch": 0, "prompts": {"a": [1, 2]}}',
        "not json",
    ],
)
def test_a_line_of_another_form(tmp_path, line):
    prompt_record.append(tmp_path, 1, 0, {("a", 0): (1, 4)})
    with open(tmp_path / PROMPTS_FILE, "a") as stream:
        stream.write(line + "\n")
    told = r"prompts.jsonl, (step|line) \d+: is (damaged|not the counts of a step) .*: restore the file"
    with pytest.raises(UserError, match=told):
        prompt_record.read(tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="prompts.jsonl: does not exist: give the folder of a run that was trained"):
        prompt_record.read(tmp_path)
