"""The command: its options, its files, and that it needs no trainer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from comparison_cases import run


def test_an_unknown_baseline_or_metric(folders, capsys):
    code, _, error = run(capsys, folders / "grpo", "--baseline", "ppo")
    assert (code, error) == (2, "error: --baseline ppo: must be one of grpo\n")
    with pytest.raises(SystemExit):
        run(capsys, folders / "grpo", "--metric", "best@4")
    assert "'best@4' must be one of avg, maj, pass@K" in capsys.readouterr().err


def test_the_baseline_can_be_any(folders, capsys):
    _, out, _ = run(capsys, folders / "grpo", folders / "paec-seed1", "--baseline", "paec", "--format", "json")
    (table,) = json.loads(out)["tables"]
    assert table["methods"][0]["benchmarks"]["aime24"]["difference"]["value"] == pytest.approx(-19 / 40)
    assert table["methods"][1]["benchmarks"]["aime24"]["difference"] is None


def test_output_writes_all_formats_and_several_metrics(folders, tmp_path, capsys):
    target = tmp_path / "new" / "folder"
    metrics = ("--metric", "avg", "maj", "pass@4")
    _, out, _ = run(capsys, folders / "grpo", folders / "paec-seed1", *metrics, "--output", target)
    assert sorted(path.name for path in target.iterdir()) == ["comparison.json", "comparison.md", "comparison.tex"]
    assert (target / "comparison.md").read_text(encoding="utf-8") == out
    assert [t["metric"] for t in json.loads((target / "comparison.json").read_text())["tables"]] == list(metrics[1:])
    assert (target / "comparison.tex").read_text(encoding="utf-8").count(r"\begin{tabular}{lrrr}") == 3


def test_comparing_needs_no_trainer():
    code = (
        "import sys, recipe.paec.compare, recipe.paec.compare.curves; "
        "print({'verl', 'ray', 'vllm', 'torch'} & set(sys.modules) or 'none of them')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "none of them\n", done.stderr


def test_results_that_cannot_be_written_are_one_sentence(folders, tmp_path, capsys):
    (tmp_path / "file").touch()
    code, out, error = run(capsys, folders / "grpo", folders / "paec-seed1", "--output", tmp_path / "file")
    assert code == 2 and out.startswith("| Method") and error.splitlines()[-1].startswith(f"error: {tmp_path / 'file'}")
    assert error.endswith("free some space, or choose another --output\n")
