"""Seeds of responses: values, distinctness, and where a run's one seed goes."""

from __future__ import annotations

import json
from itertools import product

import pytest

from benchmarks.reproducibility import compare
from recipe.paec.common.seeds import response_seed, rollout_seed
from recipe.paec.config import rules
from recipe.paec.config.identity import identity


def test_values():
    """SHA-256 of the JSON text, by another program: printf '[0, "aime24", "p0", 0]' | sha256sum"""
    assert response_seed(0, "aime24", "p0", 0) == 0xB0E8032F
    assert rollout_seed(1, False, 3, "math", 7, 0) == 0xFCCEEAC3
    assert rollout_seed(1, True, 3, "math", 7, 0) == 0xB7A1E27B


def test_every_part_counts():
    """All responses of two seeds, both uses, three steps, two sources, five rows, four samples: no two alike."""
    seeds = {rollout_seed(*key) for key in product((0, 1), (False, True), (1, 2, 11), ("a", "b"), range(5), range(4))}
    assert len(seeds) == 2 * 2 * 3 * 2 * 5 * 4
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert response_seed(0, "a", 1, 11) != response_seed(0, "a", 11, 1)


def test_one_seed_for_a_run(compose):
    config = compose("seed=7")
    assert config.data.seed == config.actor_rollout_ref.rollout.seed == 7
    assert config.actor_rollout_ref.actor.data_loader_seed == 7
    assert config.run.name == "tiny_cpu-paec-seed=7"
    assert identity(config)["seed"] == 7
    assert compose("experiment=qwen7b", "seed=8").data.seed == 8


@pytest.mark.parametrize("seed", ["-1", "1.5", "true", "null", "x"])
def test_a_seed_is_a_whole_number(compose, seed):
    assert "must be an integer >= 0" in "\n".join(rules.check_config(compose(f"seed={seed}")))


def test_a_seeded_prompt_is_prefilled_at_once_on_cpu(compose):
    """In two parts it would end vLLM's CPU engine."""
    assert compose().actor_rollout_ref.rollout.enable_chunked_prefill is False
    assert compose("experiment=qwen7b").actor_rollout_ref.rollout.enable_chunked_prefill is True


def test_batches_have_an_order_of_their_own():
    """By prompt, then sample, then output, as numbers; tags move with their keys."""
    from transfer_queue import KVBatchMeta

    from recipe.paec.driver.trainer import sample_in_order

    keys = ["000002-000001_10_0", "000002-000001_2_1", "000002-000001_2_0", "000002-000000_3_0"]
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{"seq_len": number} for number in range(4)])
    ordered, metrics = sample_in_order(lambda step: (batch, {"step": step}), step=2)
    assert ordered.keys == ["000002-000000_3_0", "000002-000001_2_0", "000002-000001_2_1", "000002-000001_10_0"]
    assert [tag["seq_len"] for tag in ordered.tags] == [3, 2, 1, 0]
    assert metrics == {"step": 2}


def write_run(folder, entropy: float, kl: float, response: str):
    (folder / "rollouts").mkdir(parents=True)
    record = {"step": 1, "actor/entropy": entropy, "critic/score/mean": 0.5, "rollout_corr/kl": kl, "timing_s/gen": kl}
    (folder / "metrics.jsonl").write_text(
        json.dumps({"step": 0, "val/a/avg@1": 0.1}) + "\n" + json.dumps(record) + "\n"
    )
    lines = [{"output": response, "score": 1.0}, {"output": "1+2", "score": 0.0}]
    (folder / "rollouts" / "1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_comparison_of_two_runs(tmp_path):
    first, same, other = (
        write_run(tmp_path / "first", 0.5, 1e-7, "3"),
        write_run(tmp_path / "same", 0.5, 3e-7, "3"),
        write_run(tmp_path / "other", 0.4, 1e-7, "4"),
    )
    (equal,) = compare(first, same)
    assert (equal.number, equal.metrics, equal.different) == (1, 3, {})  # the step, the entropy and the score
    assert (equal.engine_metrics, equal.engine_difference) == (1, pytest.approx(2e-7))
    assert (equal.responses, equal.identical) == (2, 2)
    (different,) = compare(first, other)
    assert different.different == {"actor/entropy": pytest.approx(0.2)}
    assert different.identical == 1
