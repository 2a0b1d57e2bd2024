"""The section about majority votes: its numbers by hand, from records of another task than countdown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from lab_records import record, runs

from benchmarks.lab import one_answer, results


def write(folder: Path, name: str, seed: int, majority: list[list[bool]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = record([0, 25], seed, "word_problems")
    made["problems"]["validation"]["majority"] = majority
    (folder / f"{name}-seed{seed}.json").write_text(json.dumps(made))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two methods with two seeds; of two problems the majority is right for one at first, then for one or for both."""
    for seed in (1, 2):
        write(tmp_path / "word_problems", "none", seed, [[True, False], [True, False]])
        write(tmp_path / "word_problems", "paec", seed, [[True, False], [True, True]])
    return tmp_path / "word_problems"


def test_the_section_by_hand(folder):
    text = one_answer.section(folder, draws=20)
    assert "2 validation problems x 32 responses, 2 seeds (mean, and each seed), 25 steps" in text
    # Correct responses are (seed, 2) of 32 before training and (16, 16) after it.
    assert "| before training | 0 | 0.055 (0.047, 0.062) | 0.500 (0.500, 0.500) | 1.000 (1.000, 1.000) | 0.200 " in text
    assert "| `none` | 25 | 0.500 (0.500, 0.500) | 0.500 (0.500, 0.500) | 1.000 (1.000, 1.000) | 0.100 " in text
    assert "| `paec` | 25 | 0.500 (0.500, 0.500) | 1.000 (1.000, 1.000) |" in text
    last = text.splitlines()[-1]
    # The curves of maj@32 rise linearly in accuracy from the same point, to 0.5 and to 1: half of that in the mean.
    assert re.findall(r"[+-][\d.]+(?= |$)", re.sub(r"\[[^]]*\]", "", last)) == [
        *("+0.000", "+0.500", "+0.000"),
        *("+0.250", "+0.000"),
    ]


def test_differences_are_those_of_the_common_bootstrap(folder):
    found = results.read(folder, "validation")
    gained = one_answer.differences(found["paec"], found["none"], draws=500)
    assert gained["maj@32"].value == 0.5 and gained["maj@32"].low < 0.5
    assert (gained["accuracy"].low, gained["accuracy"].high) == (0, 0)
    with pytest.raises(ValueError, match="one: its records have no majority votes"):
        one_answer.of_problems(runs())


def test_nothing_before_every_method_has_the_same_two_seeds(folder):
    (folder / "paec-seed2.json").unlink()
    assert one_answer.section(folder) == ""
    (folder / "none-seed2.json").unlink()
    assert one_answer.section(folder) == "" == one_answer.section(folder / "none")


def test_the_page_has_it_after_the_other_model(folder):
    assert "## One answer to each problem\n\nWord problems, 2 validation problems" in results.page(
        folder.parent, draws=5
    )


def test_a_majority_of_a_task_with_several_answers_is_not_read(tmp_path):
    write(tmp_path, "none", 1, [[True, False], [True, False]])
    found = results.read(tmp_path, "held_out")["none"]
    assert found.majority is None and np.array_equal(
        results.read(tmp_path, "validation")["none"].majority[0, 1], [1, 0]
    )
