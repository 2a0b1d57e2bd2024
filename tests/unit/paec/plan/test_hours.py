"""Hours and GPU-hours by hand: stated, measured, and never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recipe.paec.common.errors import UserError
from recipe.paec.plan import hours
from recipe.paec.plan.hours import NOT_KNOWN, SAME, Throughput, duration_line, read_throughput


@pytest.fixture(scope="module")
def config():
    """128 prompts x 8 responses of at most 1024 + 3072 tokens, 500 steps, on 8 GPUs; the keys that count."""
    made = OmegaConf.create()
    for key in SAME:
        OmegaConf.update(made, key, 1)
    values = {
        "model.path": "Qwen/Qwen2.5-Math-7B",
        "cluster.gpus_per_node": 8,
        "data.train_files": ["data/a.parquet"],
        "data.train_batch_size": 128,
        "data.max_prompt_length": 1024,
        "data.max_response_length": 3072,
        "actor_rollout_ref.rollout.n": 8,
        "algorithm.filter_groups.enable": False,
        "trainer.total_training_steps": 500,
    }
    for key, value in values.items():
        OmegaConf.update(made, key, value)
    return made


def run_of(folder: Path, config, seconds: list[float], testing: dict[int, float] | None = None, **changed) -> Path:
    """A run's directory with these step times."""
    folder.mkdir()
    recorded = config.copy()
    for key, value in changed.items():
        OmegaConf.update(recorded, key, value)
    OmegaConf.save(recorded, folder / "config.yaml")
    lines = [{"step": 0, "val/x/avg@4": 0.5}]
    lines += [
        {"step": i, "timing_s/step": s, "timing_s/testing": (testing or {}).get(i)} for i, s in enumerate(seconds, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "timing_s')
    return folder


def test_without_anything_it_is_not_known(config):
    assert duration_line(config, Throughput()) == NOT_KNOWN
    assert "tokens_per_second=N" in NOT_KNOWN and "measured=RUN" in NOT_KNOWN


def test_stated_by_hand(config):
    # 500 x 1024 x 4096 tokens / 20000 per second = 104857.6 s = 29.13 h.
    line = duration_line(config, Throughput(tokens_per_second=20000.0))
    assert line == (
        "duration: at most 29.1 h on 8 GPUs, 233.0 GPU-hours: 500 steps x 1024 responses x 4096 tokens (the maximum; "
        "give tokens_per_response=N if the mean is lower) at 20000 tokens/s (given); without the start, validations "
        "and checkpoints"
    )
    line = duration_line(config, Throughput(tokens_per_second=20000.0, tokens_per_response=1024.0))
    assert line.startswith(
        "duration: 7.3 h on 8 GPUs, 58.3 GPU-hours: 500 steps x 1024 responses x 1024 tokens (given)"
    )


def test_a_mean_beyond_the_longest(config):
    with pytest.raises(UserError, match=r"tokens_per_response=5000: is more than .* = 4096"):
        duration_line(config, Throughput(tokens_per_second=1.0, tokens_per_response=5000.0))


def test_rejected_prompts_make_the_tokens_unknown(config):
    filtered = config.copy()
    filtered.algorithm.filter_groups.enable = True
    assert "not known: with algorithm.filter_groups.enable=true" in duration_line(filtered, Throughput(20000.0))


def test_measured_by_hand(tmp_path, config):
    # Without the first: 100, 120 + 30 of validation, 110, mean 120 s; 500 x 120 s = 16.67 h.
    run = run_of(tmp_path / "run", config, [400.0, 100.0, 120.0, 110.0], {3: 30.0})
    assert duration_line(config, Throughput(measured=run)) == (
        f"duration: 16.7 h on 8 GPUs, 133.3 GPU-hours: 500 steps of 120.0 s, the mean of 3 steps of {run} with "
        "validations and checkpoints; without the start, and longer if responses grow"
    )
    single = run_of(tmp_path / "single", config, [7.2])
    assert "1.0 h on 8 GPUs, 8.0 GPU-hours: 500 steps of 7.2 s, the mean of 1 step of" in duration_line(
        config, Throughput(measured=single)
    )


def test_other_lengths_of_the_run_do_not_matter(tmp_path, config):
    run = run_of(tmp_path / "run", config, [10.0, 20.0], **{"trainer.total_training_steps": 2})
    assert "500 steps of 20.0 s" in duration_line(config, Throughput(measured=run))


@pytest.mark.parametrize("key", SAME)
def test_a_run_with_other_settings_is_refused(tmp_path, config, key):
    run = run_of(tmp_path / "run", config, [1.0], **{key: "else"})
    with pytest.raises(
        UserError, match=f"differs in {key} .else and here .*: measure with the same settings, or state"
    ):
        duration_line(config, Throughput(measured=run))


def test_every_setting_is_one_of_the_runs(compose):
    planned = compose("experiment=qwen7b")
    missing = object()
    assert [key for key in SAME if OmegaConf.select(planned, key, default=missing) is missing] == []


def test_runs_that_cannot_be_read(tmp_path, config):
    with pytest.raises(UserError, match="has no config.yaml: give the directory of a run"):
        duration_line(config, Throughput(measured=tmp_path))
    with pytest.raises(UserError, match="metrics.jsonl has no step with timing_s/step: let it train a few steps"):
        duration_line(config, Throughput(measured=run_of(tmp_path / "new", config, [])))
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match="config.yaml cannot be read"):
        duration_line(config, Throughput(measured=tmp_path))
    several = run_of(tmp_path / "several", config, [1.0], **{"model.path": "x", "cluster.nodes": 4})
    with pytest.raises(UserError, match="differs in model.path .* and in 1 more setting"):
        duration_line(config, Throughput(measured=several))


def test_arguments():
    known, rest = read_throughput(["experiment=qwen7b", "tokens_per_second=2e4", "tokens_per_response=900", "a.b=1"])
    assert known == Throughput(20000.0, 900.0) and rest == ["experiment=qwen7b", "a.b=1"]
    assert read_throughput(["measured=outputs/a=b"])[0].measured == Path("outputs/a=b")
    assert read_throughput(["x=1"]) == (Throughput(), ["x=1"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tokens_per_second=fast"], "tokens_per_second=fast: must be a number of tokens > 0"),
        (["tokens_per_second=0"], "must be a number of tokens > 0"),
        (["tokens_per_second=inf"], "must be a number of tokens > 0"),
        (["tokens_per_response=5"], "tokens_per_response: has no effect without tokens_per_second"),
        (["measured=x", "tokens_per_second=5"], "measured and tokens_per_second: give only one"),
    ],
)
def test_arguments_that_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        read_throughput(arguments)


@pytest.mark.parametrize(("value", "text"), [(0.0123, "0.012"), (0.96, "0.96"), (1.04, "1.0"), (250.04, "250.0")])
def test_hours_as_text(value, text):
    assert hours._shown(value) == text
