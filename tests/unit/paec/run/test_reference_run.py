"""A recorded GRPO run is shown beside a run of the quick start with the same seed, and beside nothing else."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from benchmarks.first_run import read, record
from recipe.paec.run import reference_run


def config(*overrides: str, experiment: str = "tiny_cpu", seed: int = 1, method: str = "paec"):
    return OmegaConf.create(
        {
            "run": {"experiment": experiment, "overrides": list(overrides)},
            "seed": seed,
            "identity": {"method": method},
        }
    )


@pytest.fixture
def folder(tmp_path):
    """GRPO with seed 1, recorded by the benchmark's own command."""
    run = tmp_path / "run"
    run.mkdir()
    OmegaConf.save(
        config("method=none", "seed=1", "run.name=first", "trainer.save_freq=-1", method="none"), run / "config.yaml"
    )
    metrics = [{"step": 0, "val/task/avg@4": 0.25}, {"step": 1, "actor/entropy": 0.5, "actor/grad_norm": 1.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    assert record(run, tmp_path / "recorded").name == "none.jsonl"
    return tmp_path / "recorded"


def test_the_same_seed(folder):
    lines = [{"step": 0, "accuracy": 0.25}, {"step": 1, "entropy": 0.5}]
    assert reference_run.grpo_of(config("seed=1"), folder) == lines
    assert (
        reference_run.grpo_of(config("method.rho=0.7", "run.root=/elsewhere", "trainer.test_freq=5"), folder) == lines
    )


@pytest.mark.parametrize(
    "other",
    [
        config(seed=2),
        config(experiment="tiny_math"),
        config(method="none"),
        config("actor_rollout_ref.actor.optim.lr=1e-4"),
        config("also=clip_higher"),
    ],
)
def test_other_runs_have_nothing_beside_them(folder, other):
    assert reference_run.grpo_of(other, folder) == []


def test_without_a_recording(tmp_path):
    assert reference_run.grpo_of(config(), tmp_path) == []
    for text in ("", '{"step": 0, "accuracy": 0.5}\n'):  # empty, or not saying what was run
        (tmp_path / "none.jsonl").write_text(text)
        assert reference_run.grpo_of(config(), tmp_path) == []


def test_the_picture_reads_the_same_file(folder):
    (lines,) = read(folder).values()
    assert reference_run.column(lines, "entropy") == ([1], [0.5]) and reference_run.column(lines, "accuracy") == (
        [0],
        [0.25],
    )


def test_an_installed_package_says_that_it_has_no_recording(monkeypatch):
    assert reference_run.absent(config()) == []
    monkeypatch.setattr(reference_run, "IS_CHECKOUT", False)
    assert reference_run.absent(config()) == [
        "  the recorded GRPO run to compare it with is only in a checkout of the repository"
    ]
    assert reference_run.absent(config(experiment="tiny_math")) == reference_run.absent(config(method="none")) == []
