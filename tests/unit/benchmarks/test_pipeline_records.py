"""Records of the pipeline's runs, and the comparison with the laboratory's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from lab_records import write

from benchmarks.lab import pipeline, records
from recipe.paec.common.errors import UserError

SOURCE = records.SOURCE


@pytest.fixture(autouse=True)
def two_problems(monkeypatch):
    monkeypatch.setattr(pipeline, "validation_prompts", lambda: ["second", "first"])


def run_of(folder: Path, samples: int = 32, finished: bool = True) -> Path:
    """A finished run of two steps with a validation of two problems before and after them, made up."""
    (folder / "validation").mkdir(parents=True)
    overrides = ["method=paec", "method.rho=0.7", "seed=3", "run.root=x"]
    config = {
        "seed": 3,
        "run": {"name": "a", "overrides": overrides},
        "trainer": {"total_training_steps": 2},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [
        {"step": 0, f"val/{SOURCE}/avg@32": 0.1},
        {"step": 1, "actor/entropy": 0.3, "critic/score/mean": 0.5},
        {"step": 2, "actor/entropy": 0.2, "critic/score/mean": 1.0, f"val/{SOURCE}/avg@32": 0.2},
    ][: 3 if finished else 2]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step in (0, 2):
        rows = [
            {
                "input": f"user\n{prompt}\nassistant\n",
                "acc": float(i < right),
                "pred": f"{1 + i % 2} + 1" if i % 4 else "1+ 1",
            }
            for i in range(samples)
            for prompt, right in (("second", 3), ("first", step))
        ]
        (folder / f"validation/{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_record_of_a_run(tmp_path, capsys):
    run = run_of(tmp_path / "run")
    assert pipeline.main([str(run), "--records", str(tmp_path / "records")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "records" / "paec.rho=0.7-seed3.json")
    found = json.loads((tmp_path / "records" / "paec.rho=0.7-seed3.json").read_text())
    assert found["command"] == ["paec", "train", "method=paec", "method.rho=0.7", "seed=3"]
    # In the order of the data: "second" has 3 right, two different; "first" 0, then 2 right, "1+1" and "2+1".
    assert found["problems"]["validation"] == {"correct": [[3, 0], [3, 2]], "distinct": [[2, 0], [2, 2]]}
    assert found["validation"] == {"step": [0, 2], f"val/{SOURCE}/entropy": [0.3, 0.25]}
    assert found["training"]["critic/score/mean"] == [0.75]
    one = records.read(tmp_path / "records", "validation")["paec.rho=0.7"]
    assert one.seeds == (3,) and one.entropy.tolist() == [[0.3, 0.25]]


def test_what_is_no_record(tmp_path, capsys, monkeypatch):
    with pytest.raises(UserError, match="only finished runs are recorded"):
        pipeline.record_of(run_of(tmp_path / "unfinished", finished=False))
    with pytest.raises(UserError, match=r"a problem has 4 responses: set .*val_kwargs.n=32"):
        pipeline.record_of(run_of(tmp_path / "few", samples=4))
    monkeypatch.setattr(pipeline, "validation_prompts", lambda: ["second", "first", "third"])
    with pytest.raises(UserError, match="a problem has 0 responses: set .* and validate on all problems"):
        pipeline.record_of(run_of(tmp_path / "fewer_problems"))
    other = run_of(tmp_path / "other")
    (other / "validation/0.jsonl").write_text('{"input": "user\\n1 2 > 3\\nassistant\\n", "acc": 1.0, "pred": "1+2"}\n')
    with pytest.raises(UserError, match="'1 2 > 3' is not a problem of"):
        pipeline.record_of(other)
    run = run_of(tmp_path / "no_validation")
    (run / "metrics.jsonl").write_text('{"step": 1, "actor/entropy": 0.3}\n{"step": 2, "actor/entropy": 0.3}\n')
    assert pipeline.main([str(run), "--records", str(tmp_path / "records")]) == 1
    assert f"has no validation of {SOURCE}" in capsys.readouterr().err
    assert not list((tmp_path / "records").glob("*"))


def test_agreement(tmp_path):
    write(tmp_path / "lab", "paec-seed1", "paec-seed2", "none-seed1")
    write(tmp_path / "pipeline", "paec-seed1", "paec-seed2")
    for folder, score in (("lab", 0.5), ("pipeline", 0.25)):
        for file in (tmp_path / folder).iterdir():
            content = json.loads(file.read_text())
            content["training"] |= {"critic/score/mean": [score * int(file.stem[-1])], "actor/entropy": [0.1]}
            file.write_text(json.dumps(content))
    text = pipeline.agreement(tmp_path / "lab", tmp_path / "pipeline", draws=50)
    # On the validation problems: both half right, with one and two different answers.
    assert "| `paec` | accuracy | 0.500 (0.500, 0.500) | 0.500 (0.500, 0.500) | +0.000 [+0.000, +0.000] |" in text
    assert "| `paec` | expressions | 1.50 (1.50, 1.50) | 1.50 (1.50, 1.50) | +0.00 [+0.00, +0.00] |" in text
    assert "| `paec` | training score | laboratory | 0.500 to 1.000 |" in text
    assert "| `paec` | training score | pipeline | 0.250 to 0.500 |" in text
    assert "`none`" not in text and "PAEC minus GRPO" not in text
    assert pipeline.agreement(tmp_path / "lab", tmp_path / "nothing", draws=5) == ""
    write(tmp_path / "lab", "none-seed2")
    write(tmp_path / "pipeline", "none-seed1", "none-seed2")
    for file in (*(tmp_path / "lab").glob("none*"), *(tmp_path / "pipeline").glob("none*")):
        content = json.loads(file.read_text())
        content["training"] |= {"critic/score/mean": [0.5], "actor/entropy": [0.1]}
        file.write_text(json.dumps(content))
    text = pipeline.agreement(tmp_path / "lab", tmp_path / "pipeline", draws=50)
    zero = "+0.000 [+0.000, +0.000]"
    assert f"| pipeline | {zero} | {zero} | +0.00 [+0.00, +0.00] | {zero} | +0.00 [+0.00, +0.00] |" in text


def test_methods_through_the_pipeline(tmp_path):
    folder = tmp_path / "pipeline"
    write(folder, "none-seed1", "none-seed2", "paec-seed1", "paec-seed2")
    assert pipeline.methods(folder, draws=5) == "", "GRPO and PAEC alone are the section about the laboratory"
    write(folder, "canon.mu=0.5-seed1", "canon.mu=0.5-seed2", "siren-seed1", "siren-seed2", "cispo-seed1")
    text = pipeline.methods(folder, draws=50, figures=tmp_path)
    assert 'launch/grid.sh METHODS="canon:method.mu=0.5 siren" \\\n  SEEDS="1 2" trainer.total_training_steps=' in text
    zero, none = "+0.000 [+0.000, +0.000]", "+0.00 [+0.00, +0.00]"
    minus_grpo, minus_paec = text.split("Minus ")[1:]
    volume = "+0.0000 [+0.0000, +0.0000]"
    row = f"| `canon.mu=0.5` | {zero} | {zero} | {none} | {zero} | {none} |"
    assert f"{row} {volume} | {volume} |" in minus_grpo and "`paec`" in minus_grpo
    assert row in minus_paec and "`none`" not in minus_paec
    assert "so in no table: `cispo` with seed 1 to step" in text and text.count("cispo") == 1
    assert (tmp_path / "results_pipeline.svg").is_file() and "](results_pipeline.svg)" in text
