"""A run that was killed and resumed is the run that was not: real runs with one seed, compared bit for bit."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import psutil
import pytest
from pipeline_runs import PROMPTS, SAMPLES, SAVE_EVERY, STEPS, descendants, finish, records, start, wait_for

from benchmarks.reproducibility import Step, compare

OVERRIDES = (
    "run.name=run",
    "run.export=false",
    "method.anchor_steps=3",  # the anchor is still being measured when the run is killed
    "actor_rollout_ref.rollout.val_kwargs.n=4",
)

pytestmark = [pytest.mark.pipeline, pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> tuple[Path, Path]:
    """One run to its end; another with the same seed, killed after step 3 and resumed from the checkpoint of step 2."""
    roots = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed")
    whole, killed = (root / "run" for root in roots)
    first = start(tiny, roots[0], *OVERRIDES)
    output = finish(first)
    assert first.returncode == 0, output
    second = start(tiny, roots[1], *OVERRIDES)
    wait_for(lambda: any(record["step"] == SAVE_EVERY + 1 for record in records(killed)), second)
    family = descendants(second.pid)
    second.send_signal(signal.SIGKILL)
    second.wait()
    psutil.wait_procs(family, timeout=60)
    for later in range(SAVE_EVERY + 1, STEPS + 1):  # the kill may have come a step too late
        shutil.rmtree(killed / "checkpoints" / f"global_step_{later}", ignore_errors=True)
    third = start(tiny, roots[1], *OVERRIDES)
    output = finish(third)
    assert third.returncode == 0 and f"after step {SAVE_EVERY} of {STEPS}" in output, output
    return whole, killed


@pytest.fixture(scope="module")
def steps(runs) -> list[Step]:
    return compare(*runs)


def test_every_step_is_there(steps):
    assert [step.number for step in steps] == list(range(1, STEPS + 1))
    assert all(step.metrics > 80 and step.responses == PROMPTS * SAMPLES for step in steps)


def test_metrics_are_equal(steps):
    """Rewards, entropies, anchor, floor, losses, gradient norms, lengths, validation: bit for bit."""
    assert {step.number: step.different for step in steps if step.different} == {}


def test_responses_are_equal(steps):
    assert [step.identical for step in steps] == [PROMPTS * SAMPLES] * STEPS


def test_log_probs_of_the_engine_are_equal_up_to_rounding(steps):
    """vLLM's log-probs depend in their last bits on which requests it happens to run together."""
    assert max(step.engine_difference for step in steps) < 1e-5


def test_rollouts_are_the_same_files(runs):
    for step in range(1, STEPS + 1):
        first, second = ((run / "rollouts" / f"{step}.jsonl").read_bytes() for run in runs)
        assert first == second, step


def test_validation_is_the_same(runs):
    """verl names its prompts at random, so the lines are in a different order."""
    first, second = (
        sorted(line.partition('"uid"')[0] for line in (run / "validation" / f"{STEPS}.jsonl").read_text().splitlines())
        for run in runs
    )
    assert first == second and len(first) == 32 * 4


def test_responses_differ_between_steps_and_samples(runs):
    """A seed that did not depend on the sample would make a prompt's responses all the same."""
    lines = (runs[0] / "rollouts" / "1.jsonl").read_text().splitlines()
    assert len({line.partition('"step"')[0] for line in lines}) > len(lines) // 2
