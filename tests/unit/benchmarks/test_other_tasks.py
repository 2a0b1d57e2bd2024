"""The sections about other tasks: their numbers by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from lab_records import record

from benchmarks.lab import comparison, findings, other_tasks, results

FIRST, HALF = [[True, False], [True, False]], [[True, False], [True, True]]
"""Of two problems the majority is right for one at both validations; for one, then for both."""


def write(folder: Path, name: str, seed: int, majority: list[list[bool]] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = record([0, 25], seed, "word_problems")
    if majority is not None:
        made["problems"]["validation"]["majority"] = majority
    (folder / f"{name}-seed{seed}.json").write_text(json.dumps(made))


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed in (1, 2):
        write(tmp_path / "word_problems", "none", seed, FIRST)
        write(tmp_path / "word_problems", "paec", seed, HALF)
        for task in ("countdown_four", "countdown_four_kept"):
            write(tmp_path / task, "none", seed)
            write(tmp_path / task, "paec", seed)
    return tmp_path


def numbers(line: str) -> list[str]:
    """The estimates of a table's row, without their intervals."""
    return re.findall(r"[+-][\d.]+(?= |$)", re.sub(r"\[[^]]*\]", "", line))


def test_votes_by_hand(folder):
    text = other_tasks.section(folder / "word_problems", "x.svg", draws=20)
    assert "Word problems: 2 problems x 32 responses, 2 seeds (mean, and each seed), 25 steps" in text
    # Correct responses are (seed, 2) of 32 before training and (16, 16) after it.
    assert "| before training | 0 | 0.055 (0.047, 0.062) | 1.000 (1.000, 1.000) | 0.500 (0.500, 0.500) | 0.200 " in text
    assert "| `none` | 25 | 0.500 (0.500, 0.500) | 1.000 (1.000, 1.000) | 0.500 (0.500, 0.500) | 0.100 " in text
    assert "| `paec` | 25 | 0.500 (0.500, 0.500) | 1.000 (1.000, 1.000) | 1.000 (1.000, 1.000) |" in text
    # The curves of maj@32 rise linearly in accuracy from the same point, to 0.5 and to 1: half of that in the mean.
    assert numbers(text.splitlines()[-1]) == ["+0.000", "+0.000", "+0.500", "+0.000", "+0.250"]


def test_without_votes_expressions_count(folder):
    text = other_tasks.section(folder / "countdown_four", "x.svg", draws=20)
    assert "| | step | accuracy | pass@32 | expressions | token entropy |" in text
    assert "| before training | 0 | 0.055 (0.047, 0.062) | 1.000 (1.000, 1.000) | 1.00 (1.00, 1.00) |" in text
    assert "| `paec` | 25 | 0.500 (0.500, 0.500) | 1.000 (1.000, 1.000) | 1.50 (1.50, 1.50) |" in text
    assert numbers(text.splitlines()[-1]) == ["+0.000", "+0.000", "+0.00", "+0.000", "+0.00"]


def test_paec_beside_other_methods(folder):
    for seed in (1, 2):
        write(folder / "word_problems", "entropy_bonus", seed, FIRST)
    tables = other_tasks.section(folder / "word_problems", "x.svg", draws=20).split("Minus ")
    assert tables[1].startswith("GRPO, at step 25") and tables[2].startswith("PAEC, at step 25")
    assert numbers(tables[1].split("`entropy_bonus`")[1].splitlines()[0]) == ["+0.000"] * 5
    assert numbers(tables[2].splitlines()[-1]) == ["+0.000", "+0.000", "-0.500", "+0.000", "-0.250"]
    text = findings.beside(*(other_tasks.complete(folder / "word_problems")[n] for n in ("entropy_bonus", "paec")), 20)
    assert text.startswith(
        "* **Four numbers, `entropy_bonus`** ends at token entropy 0.100, accuracy 0.500, pass@32 1.000"
    )
    assert "PAEC minus `entropy_bonus`: +0.000 [+0.000, +0.000] accuracy, +0.000 [" in text


def test_two_methods_together_beside_one_of_them(folder):
    for seed in (1, 2):
        write(folder / "word_problems", "entropy_bonus", seed, FIRST)
        write(folder / "word_problems", "entropy_bonus+paec", seed, HALF)
    text = other_tasks.section(folder / "word_problems", "x.svg", draws=20)
    _, last = text.split("Minus `entropy_bonus` alone, at step 25, ")
    assert "intervals, bold what differs:\n" in last and "Holm" not in last
    assert last.splitlines()[-1].startswith("| `entropy_bonus+paec` |")
    assert numbers(last.splitlines()[-1]) == ["+0.000", "+0.000", "+0.500", "+0.000", "+0.250"]
    assert "correction for the number of methods:" in text.split("Minus ")[1]


def test_intervals_are_those_of_the_common_bootstrap(folder):
    found = other_tasks.complete(folder / "word_problems")
    gained = comparison.differences(found["paec"], found["none"], draws=500)
    assert gained["last maj@32"].value == 0.5 and gained["last maj@32"].low < 0.5
    assert (gained["accuracy"].low, gained["accuracy"].high) == (0, 0)


def test_a_method_whose_sweep_is_under_way_is_left_out(folder):
    write(folder / "countdown_four", "pass_at_k", 1)
    assert [*other_tasks.complete(folder / "countdown_four")] == ["none", "paec"]
    write(folder / "countdown_four", "pass_at_k", 2)
    assert [*other_tasks.complete(folder / "countdown_four")] == ["none", "paec", "pass_at_k"]


def test_what_is_recorded_but_in_no_table_is_named(folder):
    write(folder / "word_problems", "siren", 2, HALF)
    text = other_tasks.section(folder / "word_problems", "x.svg", draws=20)
    assert (
        "\nRecorded, but not with GRPO's seeds and validations, so in no table: `siren` with seed 2 to step 25 "
        "(accuracy 0.500, pass@32 1.000, maj@32 1.000, token entropy 0.100).\n\n" in text
    )
    assert "Recorded, but" not in other_tasks.section(folder / "countdown_four", "x.svg", draws=20)


def test_nothing_before_two_methods_have_the_same_two_seeds(folder):
    (folder / "countdown_four" / "paec-seed2.json").unlink()
    assert other_tasks.section(folder / "countdown_four", "x.svg") == ""
    (folder / "countdown_four" / "none-seed2.json").unlink()
    assert (
        other_tasks.section(folder / "countdown_four", "x.svg") == "" == other_tasks.section(folder / "main", "x.svg")
    )


def test_the_page_and_its_figures(folder, tmp_path):
    text = results.page(folder, draws=5)
    for name, (heading, _) in other_tasks.TASKS.items():
        assert f"{heading}\n\n" in text and f"(results_{name}.svg)" in text
        assert other_tasks.section(folder / name, f"{name}.svg", 5, tmp_path)
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()


def test_majorities_are_read_where_they_are(folder):
    assert results.read(folder / "word_problems")["none"].majority is None, "the test problems have none"
    found = results.read(folder / "word_problems", "validation")["paec"].majority
    assert np.array_equal(found, [HALF, HALF])
