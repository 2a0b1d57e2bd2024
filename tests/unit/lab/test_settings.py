"""Overrides, defaults and errors of the laboratory's command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from paec_loss.methods import METHODS
from recipe.lab.settings import SHARED, settings_of
from recipe.paec.common.errors import UserError


def value(config, key: str):
    for part in key.split("."):
        config = config[part]
    return list(config) if hasattr(config, "append") else config


def leaves(node, above: str = ""):
    """Dotted key -> value, for what is not a section."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{above}.{key}" if above else key)
    else:
        yield above, node


ACTOR = "actor_rollout_ref.actor"
LR = f"{ACTOR}.optim.lr"


@pytest.mark.parametrize("base", ["grpo", "dr_grpo", "dapo"])
def test_the_bases_and_defaults_are_those_of_training(compose, base):
    """Every key that both have, and the clip range that the method makes of it."""
    training = compose(f"base={base}", "method=none")
    ours = settings_of([f"base={base}", "method=none"])
    for key in (
        *SHARED,
        "actor_rollout_ref.rollout.temperature",
        "seed",
        LR,
    ):
        assert value(ours.record, key) == value(training, key), key
    assert (ours.clip.low, ours.clip.high) == (0.2, 0.28 if base == "dapo" else 0.2)
    assert ours.by_std == (base != "dr_grpo") and ours.mixed_only == (base == "dapo")
    assert (ours.aggregation, ours.loss_scale) == (
        ("seq-mean-token-sum-norm", 32) if base == "dr_grpo" else ("token-mean", None)
    )
    assert (ours.prompts, ours.responses, ours.mini_batch, ours.lr) == (32, 8, 16, 5e-5)


def test_fields_additional_methods_and_names():
    settings = settings_of(["method=clip_cov", "method.ratio=0.002", "also=[entropy_bonus]", "seed=2", "steps=7"])
    assert settings.stack.names == ["clip_cov", "entropy_bonus"]
    assert settings.stack.methods[0].ratio == 0.002 and settings.steps == 7
    assert settings.output == Path("outputs/lab/clip_cov-also=_entropy_bonus_,ratio=0.002,seed=2")
    assert settings_of(["method=none", "name=mine"]).output == Path("outputs/lab/mine")
    assert settings_of(["method=none", "output=x/y", "steps=9"]).output == Path("x/y")


def test_an_import_path_is_a_method():
    kind = METHODS["siren"]
    settings = settings_of([f"method={kind.__module__}.{kind.__name__}", "method.lambda_low=0.25"])
    assert settings.stack.names == ["siren"] and settings.stack.methods[0].lambda_low == 0.25
    assert settings.output.name == f"{kind.__name__}-lambda_low=0.25"


@pytest.mark.parametrize(
    "overrides, sentence",
    [
        (["method=sirn"], "no method sirn: did you mean siren?"),
        (
            ["method=none", "method.rho=0.3"],
            "method none has no field rho (its fields: none); aer, forking_tokens, paec, paec_dual, paec_selective, "
            "siren have one",
        ),
        (["method.rho=2"], "method.rho=2"),
        (["method=my.Nothing"], "method.class_path=my.Nothing: cannot be imported"),
        (["step=3"], "unknown configuration key step: did you mean steps?"),
        (["steps=0"], "steps=0: must be an integer >= 1"),
        (["responses=1"], "responses=1: must be an integer >= 2: GRPO compares them"),
        (["mini_batch=5"], "prompts=32: must be a multiple of mini_batch=5"),
        (["lr=-1"], "lr=-1: must be a number > 0"),
        (
            ["trainer.total_training_steps=3"],
            "trainer.total_training_steps is set by the recipe: use steps, test_every",
        ),
        (["+more=3"], "+more=3: there is no section more, so nothing would read it"),
        (["task=nowhere"], "task=nowhere: "),
        (["method=sent"], "sent trains on the prompts in a given order, which the laboratory does not have"),
        (["method=aepo", "base=dapo"], "algorithm.filter_groups.enable=true: aepo samples some prompts"),
        (["method=clip_higher", "actor_rollout_ref.actor.clip_ratio_high=0.3"], "clip_higher sets the clip range"),
        (["method=kl_cov", "actor_rollout_ref.actor.clip_ratio_low=0.3"], "the policy loss of kl_cov does not read it"),
        (["method=ttrl", "base=dapo"], "leaves out prompts by the graded rewards, and ttrl makes its own: set it to"),
        (
            ["method=forking_tokens", "base=dr_grpo"],
            "loss_agg_mode=seq-mean-token-sum-norm is not a mean over tokens, and forking_tokens selects those of the",
        ),
        (["method=pass_at_k", "responses=4"], "responses=4: pass_at_k compares the responses to one prompt: draw at"),
        (["also=[siren,siren]", "method=none"], "also=siren: siren is already active; name every method once"),
        (["+data.more=3"], "+data.more=3: is not a key of the laboratory"),
        (["lr=null"], "lr=null: must be a number > 0"),
        (["base=gpo"], "no base gpo: did you mean grpo?"),
        (["method=[siren,paec]"], "method=[siren,paec]: a run has one method: write method=siren also=[paec]"),
        (["method=siren,paec"], "method=siren,paec: a run has one method: write method=siren also=[paec]"),
        (["base=[dapo,grpo]"], "base=[dapo,grpo]: a run has one base: write base=dapo"),
        (["base=dapo,grpo"], "base=dapo,grpo: a run has one base: write base=dapo"),
        (["method=clip_higher", "also=w_reinforce", "seed=-1"], "seed=-1"),
        (["--method=none"], "--method=none: write method=none without dashes"),
        (["--check"], "--check: paec lab has no such option: steps=1 tries a run"),
        (["--quiet=1"], "--quiet=1: paec lab has no such option: its settings are KEY=VALUE, in configs/lab.yaml"),
        (["--steps", "3"], "--steps: write steps=VALUE without dashes"),
        (["fresh=2"], "fresh=2: must be true or false"),
        (
            [f"{ACTOR}.clip_ratio=0.3"],
            f"{ACTOR}.clip_ratio=0.3: {ACTOR}.clip_ratio is set by the recipe: use {ACTOR}.clip_ratio_low and",
        ),
        (
            ["base=dapo", "algorithm.filter_groups.metric=strict"],
            "algorithm.filter_groups.metric=strict: must be acc, the score of the responses",
        ),
        (["name=../../x"], "name='../../x' must be the name of one folder, without a separator (output sets another"),
        (["name="], "name='' is empty (an unset shell variable?)"),
        (["name=false"], "name=False must be the name of one folder"),
        (["output="], "output='' is empty (an unset shell variable?)"),
        (["output=[a]"], "output=['a'] must be the path of a folder"),
        (["output=/etc/passwd/x"], "output=/etc/passwd/x: /etc/passwd is a file: give the path of a folder"),
        (["method=paec", "steps=3", "method=none"], "method=paec method=none: method is given 2 times: give it once"),
        (["method=my.A", "method=my.B"], "method=my.A method=my.B: method is given 2 times: give it once"),
        (["lr=1", "lr=1", "lr=2"], "lr=1 lr=1 lr=2: lr is given 3 times: give it once"),
        (
            ["also=clip_higher", "also=[w_reinforce]"],
            "also=clip_higher also=[w_reinforce]: also is given 2 times: write also=[clip_higher,w_reinforce]",
        ),
    ],
)
def test_errors_are_one_sentence_with_the_remedy(overrides, sentence):
    with pytest.raises(UserError) as caught:
        settings_of(overrides)
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", ["-32", "0", "true", "abc"])
def test_a_divisor_that_would_turn_the_gradient_around(value):
    with pytest.raises(UserError) as caught:
        settings_of(["method=none", "base=dr_grpo", f"{ACTOR}.loss_scale_factor={value}"])
    assert str(caught.value) == f"{ACTOR}.loss_scale_factor={value}: must be a number > 0, or null"


def test_a_name_that_is_a_number_is_the_folder():
    assert settings_of(["method=none", "name=0"]).output == Path("outputs/lab/0")


def test_every_key_is_read_or_refused():
    """Twice its number, the other flag, another choice: the run is another one, or a sentence names the key to use."""
    others = {
        f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean",
        f"{ACTOR}.optim.betas": "[0.8,0.9]",
        "algorithm.filter_groups.metric": "nonsense",
        "task": "countdown_four",
        "name": "mine",
        "output": "mine",
        "run.name": "mine",
        "run.directory": "mine",
        "run.overrides": "[]",
    }
    before, refused = settings_of(["base=dr_grpo"]), []
    for key, value in leaves(before.record):
        if key.startswith("method."):
            continue
        other = others.get(key) or (not value if isinstance(value, bool) else 2 * value if value else 3)
        try:
            after = settings_of(["base=dr_grpo", f"{key}={str(other).lower() if isinstance(other, bool) else other}"])
        except UserError as error:
            assert len(error.errors) == 1
            assert "is set by the recipe: use " in str(error) or "must be acc" in str(error), error
            refused.append(key)
            continue
        by_name = ("stack", "record") if key in ("name", "output") else ("stack", "record", "output")
        read = [field.name for field in fields(before) if field.name not in by_name]
        assert any(getattr(before, name) != getattr(after, name) for name in read), key
    assert {f"{ACTOR}.clip_ratio", "algorithm.filter_groups.metric", f"{ACTOR}.optim.lr"} < set(refused)
    assert not {f"{ACTOR}.clip_ratio_low", f"{ACTOR}.loss_scale_factor", "lr", "output"} & set(refused)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer.json"])
def test_a_task_without_one_of_its_files(tmp_path, name):
    shutil.copytree(settings_of([]).task, tmp_path / "task")
    (tmp_path / "task" / "model" / name).unlink()
    with pytest.raises(UserError, match=f"model/{name} is missing: give a folder with model/ and data/"):
        settings_of([f"task={tmp_path / 'task'}"])


def test_a_wrong_setting_is_said_before_torch_is_imported():
    """Whose import takes seconds, on a busy machine a minute."""
    code = (
        "import sys; from recipe.lab.__main__ import main\n"
        "assert main(['method=clip_kov']) == 2; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no method clip_kov: did you mean clip_cov?" in done.stderr
