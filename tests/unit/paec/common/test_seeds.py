"""Seeds of responses: values, distinctness, and where a run's one seed goes."""

from __future__ import annotations

from itertools import product

import pytest

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
    again = {rollout_seed(1, False, 3, "math", 7, sample, earlier) for sample in range(4) for earlier in range(3)}
    assert len(again) == 12 and rollout_seed(1, False, 3, "math", 7, 0, earlier=0) == 0xFCCEEAC3


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
