"""The table at the end of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

from recipe.lab.table import table


def test_the_table_has_means_over_the_seeds(tmp_path):
    def record(name: str, steps: list[int], **curves: list[float]) -> Path:
        file = tmp_path / name
        named = {f"val/reasoning_gym/countdown/{key}": values for key, values in curves.items()}
        file.write_text(json.dumps({"validation": {"step": steps, **named}}))
        return file

    def curves(*values: float) -> dict[str, list[float]]:
        keys = ("avg@32", "pass@32", "distinct@32", "entropy", "pass@2")
        return {key: [0.9, value] for key, value in zip(keys, (*values, 0.7), strict=True)}

    one = record("one", [0, 4], **curves(0.25, 0.5, 2.0, 0.125))
    two = record("two", [0, 4], **curves(0.75, 0.75, 3.0, 0.375))
    assert table({"grpo": [one, two], "mine": [two, None], "none yet": [None]}).splitlines() == [
        "| job      |  seeds | avg@32 | pass@32 | distinct@32 | entropy |",
        "| -------- | -----: | -----: | ------: | ----------: | ------: |",
        "| grpo     |      2 |  0.500 |   0.625 |       2.500 |   0.250 |",
        "| mine     | 1 of 2 |  0.750 |   0.750 |       3.000 |   0.375 |",
        "| none yet | 0 of 1 |      - |       - |           - |       - |",
        "Means over the seeds at the last validation, step 4; entropy: of a token, nats.",
    ]
    assert table({"grpo": [record("never", [])]}) == ""
