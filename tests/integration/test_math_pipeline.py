"""The real pipeline on word problems: free text from vLLM, graded by the strict rule in training."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import pandas
import pytest
from omegaconf import OmegaConf
from pipeline_runs import REPOSITORY, records

from data_prep.word_problems import DATA_SOURCE
from recipe.grading import strict
from recipe.grading.extract import extract

STEPS, PROMPTS, SAMPLES, VALIDATION = 2, 16, 8, 16
WARM_START = 360
"""Steps after which a few of a hundred responses are right and a few have no answer."""

OVERRIDES = [f"trainer.total_training_steps={STEPS}", "trainer.save_freq=-1", f"trainer.test_freq={STEPS}"]
OVERRIDES += ["trainer.val_before_train=false", "run.export=false", "run.name=words", "method.anchor_steps=2"]
OVERRIDES += ["actor_rollout_ref.rollout.val_kwargs.n=2", f"data.val_max_samples={VALIDATION}"]

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of data and model, and the directory of a run to its end."""
    made, root = tmp_path_factory.mktemp("tiny_math"), tmp_path_factory.mktemp("runs")
    command = ["bash", "launch/run_tiny_math_paec.sh", f"run.root={root}", *OVERRIDES]
    env = {**os.environ, "PAEC_TINY_MATH_DIR": str(made), "PAEC_TINY_MATH_ARGS": f"--steps {WARM_START}"}
    pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process = subprocess.Popen(command, cwd=REPOSITORY, env=env, **pipe)
    output, _ = process.communicate(timeout=1100)
    assert process.returncode == 0, output
    return made, root / "words"


def rollouts(directory: Path, step: int) -> list[dict]:
    return [json.loads(line) for line in (directory / "rollouts" / f"{step}.jsonl").read_text().splitlines()]


def test_every_step_measured_entropy_and_anchor(run):
    lines = records(run[1])
    assert [record["step"] for record in lines] == list(range(1, STEPS + 1))
    for record in lines:
        assert math.isfinite(record["actor/grad_norm"]) and record["actor/grad_norm"] > 0
        assert 0 < record["actor/entropy"] < math.log(659)
        assert record["actor/paec/selected_entropy"] > record["actor/entropy"]
        assert record["training/rollout_probs_diff_max"] < 5e-3
    hbar = [record["actor/paec/selected_entropy"] for record in lines]
    assert lines[-1]["actor/paec/anchor"] == pytest.approx(sum(hbar) / STEPS, rel=1e-12)
    assert lines[-1]["actor/paec/floor"] == pytest.approx(0.8 * sum(hbar) / STEPS, rel=1e-12)


def test_the_strict_rule_graded_every_response(run):
    """Right and wrong answers in one training; each score is that of the rule on what the response says."""
    made, directory = run
    table = pandas.read_parquet(made / "data" / "train.parquet")
    truth = {row["prompt"][0]["content"]: row["reward_model"]["ground_truth"] for _, row in table.iterrows()}
    limit = OmegaConf.load(directory / "config.yaml").data.max_response_length
    given = set()
    for record in records(directory):
        lines = rollouts(directory, record["step"])
        assert len(lines) == PROMPTS * SAMPLES
        answers = [extract(line["output"]) for line in lines]
        for line, answer in zip(lines, answers, strict=True):
            assert line["gts"] == truth[line["input"].removeprefix("user\n").removesuffix("\nassistant\n")]
            assert line["score"] == float(answer is not None and strict.equal(line["gts"], answer))
            given.add(line["score"])
        share = sum(line["score"] for line in lines) / len(lines)
        assert record["critic/score/mean"] == pytest.approx(share)
        answered = sum(answer is not None for answer in answers) / len(lines)
        assert record["reward/format"] == pytest.approx(answered)
        assert record["reward/grader_timeout"] == record["reward/grader_error"] == 0
        assert (record["reward/cut_off"] > 0) == (record["response_length/max"] >= limit)
    assert given == {0.0, 1.0}


def test_responses_are_free_text_with_boxes(run):
    """Worked solutions in words; most have a box, with and without unit, some have no answer, and few are alike."""
    outputs = [line["output"] for step in range(1, STEPS + 1) for line in rollouts(run[1], step)]
    answers = [extract(output) for output in outputs]
    boxed = [output for output, answer in zip(outputs, answers, strict=True) if answer and r"\boxed{" in output]
    assert len(outputs) // 2 < len(boxed) < len(outputs)
    assert sum(" answer is " in output for output in boxed) > len(boxed) // 2
    assert len(set(outputs)) > len(outputs) // 2
    assert None in answers
    assert len({answer.isdecimal() for answer in answers if answer}) == 2


def test_validation_is_that_of_a_mathematical_set(run):
    """Graded with math_verify behind the strict rule, as in an evaluation."""
    (record,) = [record for record in records(run[1]) if any(key.startswith("val/") for key in record)]
    found = {key.removeprefix(f"val/{DATA_SOURCE}/"): record[key] for key in record if key.startswith("val/")}
    assert record["step"] == STEPS and 0 <= found["avg@2"] <= found["pass@2"] <= 1
    lines = [json.loads(line) for line in (run[1] / "validation" / f"{STEPS}.jsonl").read_text().splitlines()]
    assert len(lines) == VALIDATION * 2
    assert found["avg@2"] == pytest.approx(sum(line["acc"] for line in lines) / len(lines))
