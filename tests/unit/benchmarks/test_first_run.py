"""The picture of the quick start's run: what is recorded of a run, and what is drawn of it."""

import json

import pytest
from omegaconf import OmegaConf

from benchmarks import first_run

METRICS = [
    {"step": 0, "val/reasoning_gym/countdown/avg@4": 0.4},
    {"step": 1, "actor/entropy": 0.25, "actor/paec/selected_entropy": 0.6, "actor/paec/floor": 0.48, "other": 1.0},
    {
        "step": 2,
        "actor/entropy": 0.1234567,
        "actor/paec/selected_entropy": 0.5,
        "actor/paec/floor": 0.44,
        "val/reasoning_gym/countdown/avg@4": 0.5,
    },
]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    about = {"experiment": "tiny_cpu", "overrides": ["method=paec", "seed=1", "trainer.total_training_steps=2"]}
    OmegaConf.save({"identity": {"method": "paec"}, "seed": 1, "run": about}, folder / "config.yaml")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    return folder


def test_what_is_recorded_of_a_run(run, tmp_path):
    file = first_run.record(run, tmp_path / "results")
    assert file == tmp_path / "results" / "paec.jsonl"
    assert first_run.read(tmp_path / "results") == {
        "paec": [
            {"experiment": "tiny_cpu", "seed": 1, "changed": ""},
            {"step": 0, "accuracy": 0.4},
            {"step": 1, "entropy": 0.25, "hbar": 0.6, "floor": 0.48},
            {"step": 2, "entropy": 0.12346, "hbar": 0.5, "floor": 0.44, "accuracy": 0.5},
        ]
    }


def test_what_is_drawn_is_what_was_recorded(run, tmp_path):
    first_run.record(run, tmp_path)
    entropy, selected, score = first_run.picture(first_run.read(tmp_path)).axes
    assert [list(line.get_ydata()) for line in entropy.lines[:2]] == [[0.25, 0.12346], pytest.approx([0.18673] * 2)]
    assert list(selected.lines[0].get_ydata()) == [0.6, 0.5] and list(selected.lines[2].get_ydata()) == [0.48, 0.44]
    assert list(score.lines[0].get_xdata()) == [0, 2] and list(score.lines[0].get_ydata()) == [0.4, 0.5]


def test_the_recorded_runs_are_grpo_and_paec_over_150_steps():
    runs = first_run.read()
    assert list(runs) == ["none", "paec"]
    for about, *lines in runs.values():
        assert about == {"experiment": "tiny_cpu", "seed": 1, "changed": ""}
        assert [line["step"] for line in lines] == list(range(151))
        assert [line["step"] for line in lines if "accuracy" in line] == list(range(0, 151, 10))
    assert not any("hbar" in line for line in runs["none"])
    assert min(line["hbar"] for line in runs["paec"] if "hbar" in line) > 0
