"""Every configuration composes, and presets are what they say."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from itertools import product

import pytest

from paec_loss import Method, PAECConfig
from paec_loss.methods import METHODS
from paec_loss.methods.paec import PAEC
from recipe.paec.common.repository import CONFIGS
from recipe.paec.config import resolve, rules
from recipe.paec.config.methods import stack_of

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
PRESETS = {
    "paec_text": {"mask": "gated", "average": "mass", "entropy": "nucleus", "rho_min": 0.5, "lambda_low": 0.05},
    "paec_no_penalty": {"lambda_low": 0.0},
    "paec_no_mask": {"mask": "none", "average": "mass"},
    "paec_entropy_only": {"beta": 0.0},
    "paec_competition_only": {"beta": 1.0},
    "paec_pure_floor": {"lambda_ent": 0.0},
    "clip_low": {"clip_low": 0.1, "clip_high": 0.2},
}
BASES = {"grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "dapo": (0.2, 0.28)}
"""The clip range of each base: below and above 1."""
OWN_RANGES = {
    "ce_gppo": (0.2, 0.2),
    "cispo": (1.0, 4.0),
    "clip_cov": (1.0, 1.0),
    "clip_higher": (0.2, 0.28),
    "gspo": (3e-4, 4e-4),
    "steer": (0.2, 0.28),
}
"""The methods with a clip range of their own."""
NEEDS = {"sent": ["curriculum=semantic_entropy"]}
"""What a method is refused without."""


def made(name: str):
    """The method of an override `method=name`."""
    kind = METHODS["clip_higher"] if name == "clip_low" else PAEC
    return kind(**PRESETS[name]) if name in PRESETS else METHODS[name]()


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


def test_t1s_plain_parts(compose):
    """The command of docs/methods.md."""
    config = compose(
        *("method=entropy_bonus", "algorithm.adv_estimator=rloo"),
        *("actor_rollout_ref.rollout.n=64", "actor_rollout_ref.rollout.temperature=1.2"),
    )
    assert rules.check_config(config) == []
    assert stack_of(config).methods == (METHODS["entropy_bonus"](),)
    rollout = config.actor_rollout_ref.rollout
    assert (config.algorithm.adv_estimator, rollout.n, rollout.temperature) == ("rloo", 64, 1.2)


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


def test_adapters_are_one_word(compose):
    model = compose("lora.rank=8", "lora.alpha=16").actor_rollout_ref.model
    assert (model.lora_rank, model.lora_alpha, model.target_modules, model.lora.merge) == (8, 16, "all-linear", False)


def test_the_settings_of_one_example_rlvr(compose):
    """Those of arXiv 2504.20571, for the first run and for the one on a selected file."""
    config = compose("experiment=qwen1.5b_math", "method=entropy_bonus", "data.train_files=[one/train.parquet]")
    assert rules.check_config(config) == [] and config.data.train_files == ["one/train.parquet"]
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (rollout.temperature, rollout.n, config.data.train_batch_size, actor.ppo_mini_batch_size) == (
        0.6,
        8,
        128,
        128,
    )
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (True, 0.001, "low_var_kl")
    (method,) = stack_of(config).methods
    assert method.coefficient == 0.001 and actor.entropy_coeff == 0
