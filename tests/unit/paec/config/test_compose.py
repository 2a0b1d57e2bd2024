"""Every configuration composes, presets are what they say, and a misspelt key is named."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict
from itertools import product

import pytest

from paec_loss import Method, PAECConfig
from paec_loss.methods import METHODS
from paec_loss.methods.paec import PAEC
from recipe.paec.common.repository import CONFIGS, REPOSITORY
from recipe.paec.config import resolve, rules
from recipe.paec.config.identity import identity, trainer_mode
from recipe.paec.config.methods import stack_of
from recipe.paec.config.schema import TRAINER_MODES
from recipe.paec.run import checkpoints

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
PRESETS = {
    "paec_text": {"mask": "gated", "average": "mass", "entropy": "nucleus", "rho_min": 0.5, "lambda_low": 0.05},
    "paec_no_penalty": {"lambda_low": 0.0},
    "paec_no_mask": {"mask": "none", "average": "mass"},
    "paec_entropy_only": {"beta": 0.0},
    "paec_competition_only": {"beta": 1.0},
    "paec_pure_floor": {"lambda_ent": 0.0},
}


BASES = {"grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "dapo": (0.2, 0.28)}
"""The clip range of each base: below and above 1."""
OWN_RANGES = {"clip_higher": (0.2, 0.28), "steer": (0.2, 0.28), "clip_cov": (1.0, 1.0)}
"""The methods with a clip range of their own."""
NEEDS = {"sent": ["curriculum=semantic_entropy"]}
"""What a method is refused without."""


def made(name: str):
    """The method of an override `method=name`."""
    return PAEC(**PRESETS[name]) if name in PRESETS else METHODS[name]()


@pytest.mark.parametrize("experiment, method", [*product(EXPERIMENTS, ["paec"]), *product(["qwen7b"], METHODS)])
def test_composes(compose, experiment, method):
    config = compose(f"experiment={experiment}", f"method={method}", *NEEDS.get(method, []))
    assert rules.check_config(config) == []
    assert config.run.name.startswith(f"{experiment}-{method}")
    assert stack_of(config).methods == (made(method),)


@pytest.mark.parametrize("method", PRESETS)
def test_presets(compose, method):
    config = compose(f"method={method}")
    assert rules.check_config(config) == []
    assert stack_of(config).methods == (made(method),)


def clip_range(config) -> tuple[float, float]:
    """Below and above 1, in verl's keys; the engine's are the same."""
    actor = config.actor_rollout_ref.actor
    assert (actor.fsdp_config.clip.low, actor.fsdp_config.clip.high) == (actor.clip_ratio_low, actor.clip_ratio_high)
    return actor.clip_ratio_low, actor.clip_ratio_high


@pytest.mark.parametrize("experiment, base", [*product(EXPERIMENTS, BASES)])
def test_the_clip_range_is_that_of_the_base_or_of_the_method(compose, experiment, base):
    """No experiment sets it, so that `none` and `clip_higher` differ; grpo is the base that nobody has to name."""
    config = compose(f"experiment={experiment}", "method=none", *([] if base == "grpo" else [f"base={base}"]))
    assert clip_range(config) == BASES[base]
    for method, own in OWN_RANGES.items():
        other = deepcopy(config)
        other.method = {"_target_": f"{METHODS[method].__module__}.{METHODS[method].__name__}"}
        resolve.apply_methods(other)
        assert clip_range(other) == own


def test_every_clip_range_is_tested():
    assert {path.stem for path in (CONFIGS / "base").glob("*.yaml")} == set(BASES)
    assert {name for name, kind in METHODS.items() if kind.clip is not Method.clip} == set(OWN_RANGES)
    assert BASES["grpo"] == BASES["dr_grpo"] != OWN_RANGES["clip_higher"], "clip_higher is another run than none"


def test_every_preset_is_tested():
    files = {path.stem for path in (CONFIGS / "method").glob("*.yaml")}
    assert files == {*PRESETS, "custom"}


@pytest.mark.parametrize("field, value", list(asdict(PAECConfig(rho=0.5, top_p=0.9)).items()))
def test_every_field_is_one_override(compose, field, value):
    config = compose(f"method.{field}={value}")
    assert getattr(stack_of(config).methods[0], field) == value


@pytest.mark.parametrize(
    "override, words",
    [
        ("method.rho=1.5", ["method.rho", "1.5"]),
        ("method.top_p=0", ["method.top_p"]),
        ("method.beta=-0.1", ["method.beta"]),
        ("method.rho_min=1.2", ["method.rho_min"]),
        ("method.anchor_steps=0", ["method.anchor_steps"]),
        ("method.mask=soft", ["method.mask", "ramp"]),
        ("method.lambda_low=nan", ["method.lambda_low"]),
        ("trainer.total_training_steps=0", ["trainer.total_training_steps"]),
        ("data.max_response_length=5000", ["data.max_response_length", "512"]),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=17", ["ppo_mini_batch_size", "17"]),
        ("actor_rollout_ref.model.use_fused_kernels=true", ["use_fused_kernels"]),
        ("actor_rollout_ref.actor.strategy=megatron", ["strategy", "fsdp2"]),
        ("cluster.gpus_per_node=many", ["cluster.gpus_per_node"]),
        ("run.keep_checkpoints=0", ["run.keep_checkpoints"]),
        ("trainer.total_training_steps=many", ["trainer.total_training_steps=many"]),
        ("actor_rollout_ref.actor.optim.lr=-1e-6", ["optim.lr"]),
        ("actor_rollout_ref.rollout.temperature=0", ["rollout.temperature"]),
    ],
)
def test_values_out_of_range(compose, override, words):
    problems = rules.check_config(compose(override))
    assert problems and all(word in problems[0] for word in words), problems


@pytest.mark.parametrize("mode", TRAINER_MODES)
def test_every_mode_is_one_word(compose, mode):
    config = compose(f"mode={mode}")
    assert rules.check_config(config) == []
    assert config.trainer.v1.trainer_mode == TRAINER_MODES[mode] and trainer_mode(config) == mode
    rollout = config.actor_rollout_ref.rollout
    separate = ("gloo", 1, 1) if mode == "separate_async" else ("naive", 0, 1)
    assert (rollout.checkpoint_engine.backend, rollout.nnodes, rollout.n_gpus_per_node) == separate


def test_every_mode_has_a_file():
    assert {path.stem for path in (CONFIGS / "mode").glob("*.yaml")} == set(TRAINER_MODES)


SEPARATE = "mode=separate_async"


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["trainer.v1.trainer_mode=sync"], ["trainer.v1.trainer_mode=sync", "mode=separate_async"]),
        (["cluster.rollout_nodes=1", "cluster.rollout_gpus_per_node=1"], ["cluster.rollout_nodes=1"]),
        ([SEPARATE, "cluster.rollout_nodes=0"], ["cluster.rollout_nodes=0", ">= 1"]),
        ([SEPARATE, "cluster.rollout_gpus_per_node=3", "cluster.gpus_per_node=2", "cluster.tensor_parallel=2"], ["3"]),
        ([SEPARATE, "trainer.v1.separate_async.parameter_sync_step=3"], ["parameter_sync_step=3", "2 mini-batches"]),
        ([SEPARATE, "cluster.weight_transfer=nccl"], ["backend=nccl", "choose gloo"]),
        ([SEPARATE, "cluster=gpu_1x8", "cluster.weight_transfer=naive"], ["backend=naive", "choose nccl"]),
        ([SEPARATE, "actor_rollout_ref.hybrid_engine=false"], ["hybrid_engine"]),
        ([SEPARATE, "lora.rank=8"], ["lora.merge=true"]),
        (["lora.rank=-1"], ["lora.rank=-1"]),
        (["lora.alpha=0"], ["lora.alpha=0"]),
        (["lora.rank=many"], ["lora.rank"]),
    ],
)
def test_what_a_mode_or_adapters_cannot_do(compose, overrides, words):
    (problem,) = rules.check_config(compose(*overrides))
    assert all(word in problem for word in words), problem


def test_separate_rollout_takes_gpus_of_its_own(compose):
    config = compose(SEPARATE, "experiment=qwen7b", "cluster=gpu_1x8", "cluster.gpus_per_node=4")
    assert rules.check_config(config) == []
    assert (config.cluster.rollout_nodes, config.cluster.rollout_gpus_per_node) == (1, 4)
    assert config.actor_rollout_ref.rollout.checkpoint_engine.backend == "nccl"
    assert config.trainer.n_gpus_per_node == 4 and config.actor_rollout_ref.rollout.n_gpus_per_node == 4


def test_adapters_are_one_word(compose):
    model = compose("lora.rank=8", "lora.alpha=16").actor_rollout_ref.model
    assert (model.lora_rank, model.lora_alpha, model.target_modules, model.lora.merge) == (8, 16, "all-linear", False)


def test_mode_and_adapters_are_part_of_a_checkpoints_identity(compose, tiny_files, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
    plain = identity(compose())
    for override, key in (
        ("mode=colocate_async", "mode"),
        ("lora.rank=8", "lora.rank"),
        ("lora.alpha=8", "lora.alpha"),
    ):
        difference = checkpoints.identity_difference(identity(compose(override)), plain)
        assert difference is not None and difference.startswith(f"{key} is "), difference


def test_a_running_cluster_is_not_told_its_size(compose):
    """ray.init refuses num_cpus and num_gpus together with an address."""
    own, joined = compose(), compose("cluster.ray_address=10.0.0.1:6379")
    assert (own.ray_kwargs.ray_init.num_cpus, own.ray_kwargs.ray_init.num_gpus) == (16, 16)
    ray_init = joined.ray_kwargs.ray_init
    assert (ray_init.address, ray_init.num_cpus, ray_init.num_gpus) == ("10.0.0.1:6379", None, None)


def test_ulysses_on_cpu_needs_our_attention(compose):
    silent = compose("cluster.gpus_per_node=2", "cluster.sequence_parallel=2")
    assert "ulysses_sdpa" in rules.check_config(silent)[0]
    safe = "actor_rollout_ref.model.override_config.attn_implementation=ulysses_sdpa"
    assert rules.check_config(compose("cluster.gpus_per_node=2", "cluster.sequence_parallel=2", safe)) == []


@pytest.mark.parametrize(
    "overrides, suffix",
    [
        ([], ""),
        (["trainer.total_training_steps=5", "run.fresh=true", "experiment=tiny_cpu", "method=none"], ""),
        (["method.rho=0.7"], "-rho=0.7"),
        (["method.rho=0.7", "actor_rollout_ref.actor.optim.lr=1e-4"], "-actor.optim.lr=1e-4,rho=0.7"),
        (["data.train_files=[/a/b.parquet]"], "-data.train_files=__a_b.parquet_"),
    ],
)
def test_run_suffix(overrides, suffix):
    assert resolve.run_suffix(overrides) == suffix


def test_long_suffixes_differ():
    one, two = (resolve.run_suffix([f"data.train_files=[/{'x' * 90}/{name}]"]) for name in "ab")
    assert len(one) == len(two) == 13 and one != two


@pytest.mark.parametrize(
    "override, words",
    [
        ("method.rhoo=0.7", ["unknown configuration key method.rhoo", "did you mean method.rho?"]),
        ("trainer.total_steps=3", ["unknown configuration key trainer.total_steps"]),
        ("method=peac", ["no method peac", "paec"]),
    ],
)
def test_unknown_keys_on_the_command_line(override, words):
    done = subprocess.run(
        [sys.executable, "-m", "recipe.paec.train", override], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
    assert all(word in done.stderr for word in words), done.stderr


def dry_run(tmp_path, *overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "recipe.paec.train", "--dry-run", f"run.root={tmp_path / 'runs'}", *overrides]
    env = {**os.environ, "PAEC_TINY_DIR": str(tmp_path / "tiny")}
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=env)


@pytest.mark.cpu_stack
def test_dry_run_starts_and_leaves_nothing(tmp_path):
    done = dry_run(tmp_path, "method=siren", "--print-config")
    assert done.returncode == 0, done.stderr
    assert "model and data would be created first" in done.stdout and "all checks passed" in done.stdout
    assert "/tiny/model, created first if missing (run.prepare_command)" in done.stdout
    assert "the model does not exist yet" in done.stdout and "ok    collective: 1 rank(s)" in done.stdout
    assert done.stdout.splitlines()[-1] == "all checks passed"
    assert "two_sided" in done.stdout and "${" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cpu_stack
def test_dry_run_names_what_is_missing(tmp_path):
    done = dry_run(tmp_path, "data.val_files=[/nowhere/v.parquet]", "+actor_rollout_ref.actor.nonsense=1")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: data.val_files: /nowhere/v.parquet does not exist: run python -m data_prep.tiny --output data/tiny"
    ]
    assert "nothing was started" in done.stdout and len(done.stdout.splitlines()) < 60, "no YAML"
    done = dry_run(tmp_path, "+actor_rollout_ref.actor.nonsense=1")  # what verl alone knows
    assert done.returncode == 2 and "nonsense" in done.stderr
