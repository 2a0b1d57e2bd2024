"""Methods in the configuration: several at once, a user's own, what they set in verl's keys, and what is refused."""

from __future__ import annotations

import json

import pytest
from hydra.errors import MissingConfigException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from paec_loss import MethodStack
from paec_loss.methods import METHODS
from paec_loss.methods.clip_higher import ClipHigher
from paec_loss.methods.kl_cov import KLCov
from paec_loss.methods.paec import PAEC
from recipe.paec.config import identity as config_identity
from recipe.paec.config import rules
from recipe.paec.config.command_line import no_such_file
from recipe.paec.config.methods import stack_of
from recipe.paec.run import checkpoints

MINE = """
# Methods that are not of this repository.
from dataclasses import dataclass
from paec_loss import Method
from paec_loss.fields import positive

@dataclass(frozen=True)
class Doubled(Method):
    factor: float = positive(2.0, "factor of the advantages")
    label: str = "doubled"

    def advantages(self, rollouts):
        return self.factor * rollouts.advantages

class Fixed(Method):
    def advantages(self, rollouts):
        return 2 * rollouts.advantages

@dataclass(frozen=True)
class Needy(Fixed):
    x: float

@dataclass(frozen=True)
class Aimed(Fixed):
    target: float = 0.5

class Empty(Method):
    pass

class Untyped(Fixed):
    alpha = 0.2
    beta = positive(2.0, "factor")

class Init(Fixed):
    def __init__(self, alpha=0.2):
        object.__setattr__(self, "alpha", alpha)
"""


BROKEN = {
    "syntax": "import os\ndef rewards(self\n    pass\n",
    "named": "from paec_loss import Method\n\nclass Early(Method):\n    alpha = omega\n",
    "lacks": "import no_such_library.inner\n",
}
"""Name -> text of a module that cannot be imported."""


@pytest.fixture()
def mine(tmp_path, monkeypatch):
    """A module `mine` outside this repository, and those that cannot be imported."""
    (tmp_path / "mine.py").write_text(MINE)
    for name, text in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


def test_two_at_once(compose):
    config = compose("also=clip_higher", "also.clip_higher.clip_high=0.3", "method.rho=0.7")
    assert rules.check_config(config) == []
    assert stack_of(config).methods == (PAEC(rho=0.7), ClipHigher(clip_high=0.3))
    assert config.run.name == "tiny_cpu-paec-also.clip_higher.clip_high=0.3,also=clip_higher,rho=0.7"
    identity = config_identity.identity(config)
    assert (identity["method"], identity["method.rho"], identity["also.clip_higher.clip_high"]) == ("paec", 0.7, 0.3)
    three = compose("method=none", "also=[clip_higher,w_reinforce]")
    assert stack_of(three).names == ["none", "clip_higher", "w_reinforce"]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_together_with_another(compose, name):
    """Each can be added to `none`, and what it needs of verl's keys is there."""
    order = ["curriculum=semantic_entropy"] if "curriculum" in METHODS[name].needs else []
    config = compose("method=entropy_bonus" if name == "none" else "method=none", f"also={name}", *order)
    assert rules.check_config(config) == []
    actor, stack = config.actor_rollout_ref.actor, stack_of(config)
    assert actor.policy_loss.loss_mode == ("method" if stack.own_surrogate else "vanilla")
    assert (actor.use_kl_loss, actor.kl_loss_coef if actor.use_kl_loss else 0) == (
        "reference" in METHODS[name].needs,
        0,
    )


def test_the_clip_range_reaches_verl(compose):
    actor = compose("method=steer").actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.28, 10.0)
    assert dict(actor.fsdp_config.clip) == {"_target_": "paec_loss.Clip", "low": 0.2, "high": 0.28, "dual_clip": 10.0}
    actor = compose("method=clip_cov").actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (1.0, 1.0, 1e30)
    actor = compose("method=paec", "actor_rollout_ref.actor.clip_ratio_high=0.5").actor_rollout_ref.actor
    assert actor.fsdp_config.clip.high == 0.5


def test_bases(compose):
    config = compose("base=dr_grpo", "data.max_response_length=64")
    assert rules.check_config(config) == []
    actor = config.actor_rollout_ref.actor
    assert not config.algorithm.norm_adv_by_std_in_grpo
    assert (actor.loss_agg_mode, actor.loss_scale_factor) == ("seq-mean-token-sum-norm", 64)
    config = compose("base=dapo", "method=forking_tokens")
    assert rules.check_config(config) == []
    assert (config.actor_rollout_ref.actor.clip_ratio_high, config.algorithm.filter_groups.enable) == (0.28, True)


@pytest.mark.parametrize("given, divergence", [([], "tv"), (["method.divergence=kl"], "kl")])
def test_a_default_that_another_field_decides(compose, given, divergence):
    """The group's defaults are those of tv: they must not be written into a configuration with kl."""
    config = compose("method=dppo", *given)
    assert stack_of(config).methods[0] == METHODS["dppo"](divergence=divergence)
    assert config.method.low is config.method.high is None


def test_a_method_from_outside(compose, mine):
    config = compose("method=custom", "method.class_path=mine.Doubled", "+method.factor=3", "also=kl_cov")
    assert rules.check_config(config) == []
    doubled, kl_cov = stack_of(config).methods
    assert (type(doubled).__name__, doubled.factor, kl_cov) == ("Doubled", 3.0, KLCov())
    nodes = config.actor_rollout_ref.actor.fsdp_config.methods
    assert dict(nodes[0]) == {"_target_": "mine.Doubled", "factor": 3}
    assert config_identity.identity(config)["method"] == "mine.Doubled"
    assert config.run.name == "tiny_cpu-custom-also=kl_cov,class_path=mine.Doubled,factor=3"


@pytest.mark.parametrize("given", [["method=mine.Aimed"], ["method=custom", "method.class_path=mine.Aimed"]])
def test_a_field_named_target(compose, mine, given):
    config = compose(*given, "method.target=0.3")
    assert rules.check_config(config) == [] and stack_of(config).methods[0].target == 0.3
    assert config.run.name == "tiny_cpu-custom-class_path=mine.Aimed,target=0.3"


def test_the_short_form(compose, mine):
    """The same run as the long one, whatever the order."""
    long = compose("method=custom", "method.class_path=mine.Doubled", "+method.factor=3", "also=kl_cov", "seed=3")
    short = compose("seed=3", "method.factor=3", "method=mine.Doubled", "also=kl_cov")
    assert rules.check_config(short) == [] and stack_of(short).methods == stack_of(long).methods
    assert short.run.name == long.run.name and short.actor_rollout_ref == long.actor_rollout_ref
    assert config_identity.identity(short) == config_identity.identity(long)
    with pytest.raises(MissingConfigException) as caught:
        compose("also=[kl_cov,mine.Doubled]")
    assert no_such_file(caught.value) == (
        "also=mine.Doubled: a class of your own goes to method=, one of the catalogue to also=: method=mine.Doubled "
        "also=..."
    )


def test_schedules_on_a_command_line(compose, mine):
    """For the method, for an additional one, and for a class from outside; in the run's name and its identity."""
    config = compose(
        *("method=entropy_bonus", "method.coefficient=linear:0.01:0:200"),
        *("also=clip_higher", "also.clip_higher.clip_high=cosine:0.28:0.2:50"),
    )
    assert rules.check_config(config) == []
    stack = stack_of(config)
    values = {"entropy_bonus/coefficient": 0.005, "clip_higher/clip_high": 0.2}
    assert stack.scheduled_values(101) == pytest.approx(values, rel=1e-14)
    identity = config_identity.identity(config)
    assert identity["method.coefficient"] == "linear:0.01:0.0:200"
    assert identity["also.clip_higher.clip_high"] == "cosine:0.28:0.2:50"
    assert json.loads(json.dumps(identity)) == identity
    actor = config.actor_rollout_ref.actor
    assert actor.policy_loss.loss_mode == "method", "the clip range moves, so the surrogate is ours"
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.fsdp_config.clip.high) == (0.2, 0.2, 0.2)
    assert actor.fsdp_config.methods[0].coefficient == "linear:0.01:0:200"
    engine = instantiate(OmegaConf.to_container(actor.fsdp_config.methods), _convert_="partial")
    assert MethodStack(engine).scheduled_values(101) == stack.scheduled_values(101)
    own = compose("method=custom", "method.class_path=mine.Doubled", "+method.factor=warmup:2:4")
    assert rules.check_config(own) == [] and stack_of(own).scheduled_values(2) == {"mine.Doubled/factor": 1.0}


def test_a_run_with_another_schedule_is_another_run(compose):
    same, other, fixed = (
        config_identity.identity(compose("method=entropy_bonus", f"method.coefficient={value}"))
        for value in ("linear:1e-2:0.0:200", "linear:0.01:0:100", "0.01")
    )
    config = compose("method=entropy_bonus", "method.coefficient=linear:0.01:0:200")
    assert config.run.name == "tiny_cpu-entropy_bonus-coefficient=linear_0.01_0_200"
    plain = config_identity.identity(config)
    assert checkpoints.identity_difference(plain, same) is None
    for found in (other, fixed):
        assert checkpoints.identity_difference(plain, found).startswith("method.coefficient is ")


REFUSED = [
    (
        ["method=entropy_bonus", "method.coefficient=linear:0.01:0:0"],
        "STEPS in linear:FROM:TO:STEPS must be an integer",
    ),
    (["method=entropy_bonus", "method.coefficient=linaer:0:1:9"], "there is no schedule linaer"),
    (["method=stare", "method.variant=linear:0:1:9"], "method.variant=linear:0:1:9: cannot follow a schedule: it must"),
    (["method=none", "also=steer", "also.steer.clip_low=linear:0:2:9"], "2 must be in [0, 1]; it is the lower clip"),
    (["method=paec", "method.top_p=linear:0.8:0.9:9"], "it changes the nucleus of the run's token statistics"),
    (
        [
            *("method=clip_higher", "method.clip_high=linear:0.2:0.3:9"),
            "actor_rollout_ref.actor.policy_loss.loss_mode=gspo",
        ],
        "loss_mode=gspo: clip_higher has its own policy loss",
    ),
    (["method=custom"], "method.class_path=null: method=custom needs the import path"),
    (
        ["method=custom", "method.target=mine.Doubled"],
        "method.target=mine.Doubled: write method.class_path=mine.Doubled, or method=mine.Doubled alone",
    ),
    (
        ["method=custom", "method.class_path=no_such_package.Thing"],
        "method.class_path=no_such_package.Thing: cannot be import",
    ),
    (
        ["method=no_such_package.Thing"],
        "(No module named 'no_such_package'): write package.module.Class, and add the folder that holds the package to "
        "PYTHONPATH",
    ),
    (["method=mine.Dubled"], "method.class_path=mine.Dubled: mine has no Dubled: did you mean mine.Doubled?"),
    (["method=syntax.Mine"], "syntax.py, line 2: '(' was never closed: 'def rewards(self'): correct the file"),
    (["method=named.Early"], "named.py, line 4: NameError: name 'omega' is not defined): correct the file"),
    (
        ["method=lacks.Mine"],
        "lacks.py, line 1: ModuleNotFoundError: No module named 'no_such_library'): install what it imports, or",
    ),
    (["method=custom", "method.class_path=os.path.join"], "method.class_path=os.path.join: must be a subclass"),
    (
        ["method=custom", "method.class_path=mine.Doubled", "+method.factor=0"],
        "method.factor=0: must be > 0; it is the",
    ),
    (
        ["method=custom", "method.class_path=mine.Doubled", "+method.faktor=1"],
        "method.faktor=1: Doubled has no field faktor: did you mean factor? Its fields are factor, label",
    ),
    (
        ["method=custom", "method.class_path=mine.Doubled", "+method.statistics=step"],
        "method.statistics=step: Doubled has no field statistics; its fields are factor, label",
    ),
    (["method=custom", "method.class_path=mine.Doubled", "+method.label=3"], "method.label=3: must be text"),
    (
        ["method=custom", "method.class_path=mine.Fixed", "+method.x=3"],
        "method.x=3: Fixed has no field x, nor any other",
    ),
    (
        ["method=mine.Untyped", "method.alpha=0.3"],
        "method.alpha=0.3: alpha of Untyped has no type, so it is not a field: write alpha: float = 0.2 in the class",
    ),
    (
        ["method=mine.Untyped", "method.beta=3"],
        "method.beta=3: beta of Untyped has no type, so it is not a field: write beta: float = ... in the class",
    ),
    (["method=mine.Untyped", "method.advantages=3"], "method.advantages=3: Untyped has no field advantages, nor any"),
    (
        ["method=mine.Init", "method.alpha=3"],
        "method.alpha=3: alpha is a parameter of the __init__ of Init, and no field: write @dataclass(frozen=True) "
        "above the class and alpha: float = 0.2 in it, in place of the __init__",
    ),
    (["method=custom", "method.class_path=mine.Needy"], "method.x: Needy has no default for it: add method.x=..."),
    (
        ["method=custom", "method.class_path=mine.Empty"],
        "method.class_path=mine.Empty: overrides no hook, so it would train",
    ),
    (
        ["method=steer", "+method.statistics=step"],
        "method.statistics=step: this field is now called method.statistics_from",
    ),
    (["method=paec", "method.statistics_from=lagged"], "method.statistics_from='lagged': must be one of exact, step"),
    (["method=sent"], "sent trains on the prompts in a given order: add curriculum=semantic_entropy"),
    (["method=steer", "also=clip_cov"], "steer and clip_cov each bring a clip range: choose one"),
    (["method=paec", "also=paec"], "paec is already active"),
    (
        ["method=kl_cov", "actor_rollout_ref.actor.policy_loss.loss_mode=gspo"],
        "loss_mode=gspo: kl_cov has its own policy",
    ),
    (["method=steer", "actor_rollout_ref.actor.clip_ratio_high=0.3"], "clip_ratio_high=0.3: steer sets the clip"),
    (["method=aepo", "base=dapo"], "algorithm.filter_groups.enable=true: aepo"),
    (["method=aepo", "mode=colocate_async"], "mode=colocate_async: aepo"),
    (["method=empg", "algorithm.rollout_correction.bypass_mode=true"], "bypass_mode=true skips the log-prob pass"),
    (
        ["method=steer", "method.statistics_from=step", "algorithm.rollout_correction.bypass_mode=true"],
        "that steer reads",
    ),
    (["method=hapo", "actor_rollout_ref.model.use_fused_kernels=true"], "use_fused_kernels=true"),
    (["method=paec", "also=siren", "also.siren.top_p=0.9"], "need nuclei of different mass"),
    (["method=paec", "method.top_p=1", "also=siren"], "need nuclei of different mass [0.8, 1.0]: give them the same"),
    (["actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm"], "loss_scale_factor is set:"),
    *(
        (
            [f"method={name}", "algorithm.adv_estimator=reinforce_plus_plus", "actor_rollout_ref.rollout.n=1"],
            f"actor_rollout_ref.rollout.n=1: {name} compares the responses to one prompt: draw at least 2",
        )
        for name in (
            *("canon", "qae", "hardness", "seed_grpo", "ttrl", "empo"),
            *("hapo_average", "unlikeliness", "ppl_advantage", "ettrl_advantage"),
        )
    ),
    (
        ["method=pass_at_k", "method.k=8"],
        "actor_rollout_ref.rollout.n=8: pass_at_k compares the responses to one prompt: draw at least 9",
    ),
    (["method=ttrl", "method.min_votes=9"], "actor_rollout_ref.rollout.n=8: ttrl compares the responses to one prompt"),
    *(
        (
            ["method=none", f"also={name}", "algorithm.use_kl_in_reward=true"],
            f"algorithm.use_kl_in_reward=true: {name} makes its own advantages from the rewards, without the KL: use "
            "actor_rollout_ref.actor.use_kl_loss=true",
        )
        for name in ("canon", "qae", "hardness", "pass_at_k", "seed_grpo", "hapo_average")
    ),
    (["method=clip_cov", "method.lower=6"], "method.lower=6.0: must be below method.upper=5.0"),
]


@pytest.mark.parametrize(("overrides", "words"), REFUSED, ids=[" ".join(overrides) for overrides, _ in REFUSED])
def test_refused_in_one_sentence(compose, mine, overrides, words):
    (problem,) = rules.check_config(compose(*overrides))
    assert words in problem and "\n" not in problem


def test_what_a_method_without_statistics_leaves_alone(compose):
    """bypass_mode and fused kernels are refused only where something is read that they leave out."""
    config = compose("method=clip_higher", "algorithm.rollout_correction.bypass_mode=true")
    assert rules.check_config(config) == []
    assert rules.check_config(compose("method=none", "actor_rollout_ref.model.use_fused_kernels=true")) == []
