"""pass@k of every k, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from lab_records import runs, write

from benchmarks.lab import pass_at_k, results


def test_every_k_by_hand():
    one = runs(correct=16)
    found = pass_at_k.at_every_k(one, 0)
    assert found.shape == (2, 3, 32)
    # Of 32 responses 8, 16, 0 are right: two of 32 are both wrong in 24 * 23, 16 * 15, 32 * 31 of 32 * 31 pairs.
    assert found[0, :, 0].tolist() == [0.25, 0.5, 0.0]
    assert found[1, :, 1].tolist() == pytest.approx([1 - 24 * 23 / (32 * 31), 1 - 16 * 15 / (32 * 31), 0])
    assert found[0, 0, 23] < 1 and found[0, 0, 24:].tolist() == [1] * 8, (
        "25 responses cannot all be among 24 wrong ones"
    )
    assert pass_at_k.before_training(one)[31] == pytest.approx(2 / 3)


def test_overtaken_is_the_k_from_which_on_it_was_higher_before_training():
    start = np.array([0.1, 0.5, 0.9])
    assert pass_at_k.overtaken(start, np.array([0.2, 0.5, 0.8])) == 3
    assert pass_at_k.overtaken(start, np.array([0.05, 0.6, 0.8])) == 3, "not at k = 2"
    assert pass_at_k.overtaken(start, np.array([0.05, 0.4, 0.8])) == 1
    assert pass_at_k.overtaken(start, np.array([0.05, 0.4, 0.9])) is None
    assert pass_at_k.overtaken(start, start - 1e-15) is None, "rounding"


def test_differences_are_those_of_each_k():
    found = pass_at_k.differences(runs(correct=32), runs(correct=16), draws=50)
    assert [*found] == [1, 2, 4, 8, 16, 32]
    assert found[1].value == 0.5 and found[32].value == 0.0
    assert found[2].value == pytest.approx(16 * 15 / (32 * 31))


def test_the_section(tmp_path):
    write(tmp_path / "long", *(f"{method}-seed{seed}" for method in ("none", "paec") for seed in (1, 2)))
    text = pass_at_k.section(tmp_path, draws=20)
    assert "### Three numbers, 25 steps, 2 test problems" in text and "our numbers" not in text
    # Correct responses are (seed, 2) of 32 before training and (3, 4) after it.
    assert f"| before training | {(1.5 + 2) / 64:.3f} |" in text
    assert f"| `paec` | {3.5 / 32:.3f} |" in text
    assert text.splitlines()[-1].startswith("| `paec` | +0.000 [+0.000, +0.000] | ")
    assert "above 32 (above 32, above 32) |" in text, "both problems are solved within 32 tries at any time"
    assert text in results.page(tmp_path, draws=20)
    assert pass_at_k.section(tmp_path / "other") == ""
