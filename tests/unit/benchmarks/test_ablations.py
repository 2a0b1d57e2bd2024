"""The table of PAEC's parts: what is compared with what, and what is not there yet."""

from __future__ import annotations

import numpy as np
import pytest
from lab_records import runs, write

from benchmarks.lab import ablations, comparison, records, results
from recipe.paec.scoring.estimators import Difference


def test_a_training_metric_is_weighted_by_its_steps():
    one = {"step": [10, 40], "a": [1.0, 2.0], "b": [None, 3.0]}
    two = {"step": [10, 40], "a": [3.0, 4.0]}
    found = records.Runs("x", (1, 2), *[np.zeros(1)] * 4, training=(one, two))
    assert records.over_training(found, "a") == pytest.approx((10 * 1 + 30 * 2 + 10 * 3 + 30 * 4) / 80)
    assert records.over_training(found, "b") == 3.0
    assert records.over_training(found, "c") is None
    assert records.over_training(runs(), "a") is None


def test_the_section_of_records(tmp_path):
    write(tmp_path / "defaults", *(f"{name}-seed{seed}" for name in ("none", "paec") for seed in (1, 2)))
    text = results.page(tmp_path, draws=20)
    assert ablations.HEADING not in text
    write(tmp_path / "ablations", "mask=hard-seed1")
    text = results.page(tmp_path, draws=20)
    assert ablations.HEADING in text and "only some of the seeds (in brackets) were run: `mask=hard` (1)." in text
    assert "| `mask=hard` |" not in text
    write(tmp_path / "ablations", "mask=hard-seed2", "rho=0.9-seed1", "rho=0.9-seed2")
    text = results.page(tmp_path, draws=20)
    assert "were run" not in text.split(ablations.HEADING)[1]
    # Accuracy (seed + 2) / 64 at first and 7 / 64 at last; distinct 1.5; the penalty in 0.25 and 0.5 of the steps.
    row = "0.109 | 1.000 | 1.50 | 0.100 | 0.38 | - |"
    assert f"| `mask=hard` | {row}" in text and f"| PAEC | {row}" in text and f"| GRPO | {row}" in text
    assert "| `rho=0.9` | +0.000 [+0.000, +0.000] | " in text
    write(tmp_path / "ablations", "rho=0.9-seed1", step=(0, 50))
    with pytest.raises(ValueError, match="validated at different steps"):
        results.page(tmp_path, draws=20)


def test_a_difference_is_bold_where_its_interval_excludes_zero():
    def cell(difference: Difference, digits: int) -> str:
        return comparison.in_bold(difference, digits, difference.p)

    better = cell(Difference(0.25, 0.125, 0.5, 0.01), 2)
    assert better == "**+0.25 [+0.12, +0.50]**"
    assert cell(Difference(-0.25, -0.5, 0.0, 0.1), 3) == "-0.250 [-0.500, +0.000]"
    assert cell(Difference(-0.25, None, None, None), 1) == "-0.2"
