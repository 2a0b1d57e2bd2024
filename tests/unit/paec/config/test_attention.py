"""flash-attn where it is installed, packed_sdpa elsewhere; what was asked for by name is not replaced."""

from __future__ import annotations

import pytest

from recipe.paec.config import attention, rules
from recipe.paec.doctor import environment

KEY = attention.KEY


@pytest.fixture
def flash_attn(monkeypatch):
    """flash_attn(True or False): whether it is installed."""
    return lambda there: monkeypatch.setattr(attention, "has_flash_attn", lambda: there)


@pytest.mark.parametrize("cluster", ["gpu_1x1", "gpu_1x8", "gpu_4x8"])
@pytest.mark.parametrize("there, name", [(True, "flash_attention_2"), (False, "packed_sdpa")])
def test_auto_on_every_gpu_cluster(compose, flash_attn, cluster, there, name):
    flash_attn(there)
    config = compose("experiment=qwen1.5b", f"cluster={cluster}")
    assert attention.name_of(config) == name
    assert rules.check_config(config) == []
    check = environment.check_installed(config)
    assert check.errors == () and check.found.startswith(name)
    assert ("FLASH_ATTN=1 bash launch/setup_env.sh gpu" in check.found) is not there


@pytest.mark.parametrize("override", ["cluster.attention=flash_attention_2", f"{KEY}=flash_attention_2"])
def test_what_was_asked_for_by_name_is_not_replaced(compose, flash_attn, override):
    flash_attn(False)
    config = compose("experiment=qwen1.5b", override)
    assert attention.name_of(config) == "flash_attention_2"
    (problem,) = environment.check_installed(config).errors
    assert problem.startswith("attn_implementation=flash_attention_2 needs flash-attn, which is not installed")
    assert "FLASH_ATTN=1" in problem and "cluster.attention=auto" in problem
    flash_attn(True)
    assert environment.check_installed(config).errors == ()


def test_sdpa_by_name_is_sdpa_where_flash_attn_is_installed(compose, flash_attn):
    flash_attn(True)
    config = compose("experiment=qwen1.5b", "cluster.attention=sdpa")
    assert attention.name_of(config) == "sdpa"
    assert environment.check_installed(config).found == "sdpa"


@pytest.mark.parametrize("there, name", [(True, "flash_attention_2"), (False, "packed_sdpa")])
def test_ulysses_needs_no_flash_attn(compose, flash_attn, there, name):
    flash_attn(there)
    config = compose("experiment=qwen14b")
    assert attention.name_of(config) == name
    assert rules.check_config(config) == [] and environment.check_installed(config).errors == ()


def test_auto_on_cpu_is_sdpa_for_padded_rows_whatever_is_installed(compose, flash_attn):
    flash_attn(True)
    assert attention.name_of(compose("experiment=tiny_cpu")) == "sdpa"
    ranks = ("cluster.gpus_per_node=2", "cluster.sequence_parallel=2")
    assert attention.name_of(compose("experiment=tiny_cpu", *ranks)) == "packed_sdpa"


def test_packed_sdpa_with_padded_rows_is_refused(compose, flash_attn):
    flash_attn(False)
    padded = "actor_rollout_ref.model.use_remove_padding=false"
    assert attention.name_of(compose("experiment=qwen1.5b", padded)) == "sdpa"
    (problem,) = rules.check_config(compose("experiment=qwen1.5b", padded, "cluster.attention=packed_sdpa"))
    assert problem == (
        "attn_implementation=packed_sdpa supports packed rows only: set "
        f"actor_rollout_ref.model.use_remove_padding=true, or {KEY}=sdpa"
    )


@pytest.mark.parametrize("experiment", ["qwen14b", "tiny_cpu"])
@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_ulysses_with_attention_that_stays_within_a_rank_is_refused(compose, experiment, name):
    ranks = ["cluster.gpus_per_node=2", "cluster.sequence_parallel=2"]
    (problem,) = rules.check_config(compose(f"experiment={experiment}", f"cluster.attention={name}", *ranks))
    assert problem.startswith(
        f"cluster.sequence_parallel=2 with attn_implementation={name} gives wrong results without an error: add {KEY}="
    )


def test_triton_parts_of_flash_attn_alone_are_not_it(tmp_path, monkeypatch):
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert not attention.has_flash_attn()
    (tmp_path / "flash_attn_2_cuda.py").write_text("")
    assert attention.has_flash_attn()
