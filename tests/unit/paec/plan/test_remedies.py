"""Every GPU configuration fits its GPUs, and a remedy works."""

from __future__ import annotations

import pytest
from plan_cases import DOCUMENT, SEVEN

from recipe.paec.common.console import GIB
from recipe.paec.common.repository import CONFIGS
from recipe.paec.config import attention
from recipe.paec.plan import formulas, remedies, settings, shapes
from recipe.paec.plan.shapes import QWEN

FITTING = [
    *((name, cluster) for name in ("qwen1.5b", "qwen7b", "qwen14b") for cluster in ("gpu_1x8", "gpu_4x8")),
    ("qwen1.5b_math", "gpu_1x8"),
    ("qwen32b", "gpu_4x8"),
    ("qwen32b_1x8", "gpu_1x8"),
]


@pytest.mark.parametrize("experiment, cluster", FITTING)
def test_configurations_fit_80_gib(compose, experiment, cluster):
    config = compose(f"experiment={experiment}", f"cluster={cluster}")
    setup, (shape, _) = settings.read_setup(config), shapes.find_shape(config.model.path)
    assert setup.shards == {"gpu_1x8": 8, "gpu_4x8": 32}[cluster]
    assert remedies.errors_of(shape, setup, 80 * GIB) == []
    # At least a hundred responses of full length are generated at once, and one fits a micro-batch.
    replicas = setup.nodes * setup.gpus_per_node // setup.tensor_parallel
    kv_tokens = formulas.estimate(shape, setup, 80 * GIB).kv_tokens
    assert replicas * (kv_tokens // setup.length) >= 100
    assert setup.tokens * setup.sequence_parallel >= setup.length
    assert shape.heads % setup.sequence_parallel == 0 == shape.heads % setup.tensor_parallel
    found = formulas.estimate(shape, setup, 80 * GIB)
    row = (
        f"{experiment}, {cluster}",
        f"{setup.tokens} x {setup.sequence_parallel}",
        setup.tensor_parallel,
        "host" if setup.cpu_policy else "GPU",
        *(f"{found.total(phase) / GIB:.1f}" for phase in ("update", "rollout")),
        replicas * (kv_tokens // setup.length),
    )
    assert f"| {' | '.join(map(str, row))} |" in DOCUMENT


@pytest.mark.parametrize("experiment", ["qwen1.5b", "qwen7b"])
def test_configurations_fit_with_a_mask_of_all_pairs(compose, experiment):
    config = compose(f"experiment={experiment}", "cluster.attention=sdpa")
    setup, (shape, _) = settings.read_setup(config), shapes.find_shape(config.model.path)
    assert setup.dense_mask and remedies.errors_of(shape, setup, 80 * GIB) == []


ONE_GPU = {"qwen0.6b_gsm8k": 24, "qwen0.6b_gsm8k_80gb": 80}
"""GiB of the card that each configuration for one GPU is for; test_one_gpu_configs.py has what smaller ones show."""


@pytest.mark.parametrize("experiment, memory", ONE_GPU.items())
def test_the_table_for_one_gpu(compose, monkeypatch, experiment, memory):
    monkeypatch.setattr(attention, "has_flash_attn", lambda: False)
    config = compose(f"experiment={experiment}")
    setup, (shape, _) = settings.read_setup(config), shapes.find_shape(config.model.path)
    assert remedies.errors_of(shape, setup, memory * GIB) == []
    found = formulas.estimate(shape, setup, memory * GIB)
    phases = (f"{found.total(phase) / GIB:.1f}" for phase in ("update", "weight sync", "rollout"))
    row = (f"{experiment}, {memory} GiB", setup.tokens, setup.memory_fraction, *phases, found.kv_tokens // setup.length)
    assert f"| {' | '.join(map(str, row))} |" in DOCUMENT


def test_every_gpu_experiment_is_planned():
    files = {path.stem for path in (CONFIGS / "experiment").glob("*.yaml")}
    assert files == {name for name, _ in FITTING} | set(ONE_GPU) | {"tiny_cpu", "tiny_math", "tiny_gpu"}


@pytest.mark.parametrize("experiment, memory", [("qwen14b", 64), ("qwen7b", 24)])
def test_a_remedy_works(compose, experiment, memory):
    config = compose(f"experiment={experiment}")
    shape = shapes.find_shape(config.model.path)[0]
    assert remedies.errors_of(shape, settings.read_setup(config), memory * GIB)
    sentence = remedies.remedy(shape, settings.read_setup(config), memory * GIB)
    assert sentence.startswith("it would fit with ")
    fixed = compose(f"experiment={experiment}", *sentence.removeprefix("it would fit with ").split())
    assert remedies.errors_of(shape, settings.read_setup(fixed), memory * GIB) == []


def test_no_remedy(compose):
    assert "use more GPUs" in remedies.remedy(QWEN["32B"], SEVEN, 8 * GIB)
