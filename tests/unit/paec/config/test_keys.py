"""Every key that cannot be set is refused in one sentence that names it, before anything is imported or started."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from omegaconf import DictConfig, OmegaConf
from torch.distributed.constants import default_pg_timeout
from train_check import check

from recipe.paec.common.repository import CONFIGS
from recipe.paec.config import keys, rules, values

OURS = {"seed", "method", "also", "run", "model", "lora", "cluster"}
"""Top-level keys to which an interpolation makes another key the recipe's own."""
PACKAGES = {"data": "data", "model": "model", "method": "method"}
"""Groups of configs/ whose files have keys below a section, not at the top."""

FREE = {
    f"{values.ROLLOUT}.max_model_len": "the experiments give a default that fits the model; a shorter one saves memory",
    f"{values.MODEL}.override_config.attn_implementation": "cluster.attention is its default; only this key is read",
    f"{values.ACTOR}.use_torch_compile": "cluster.compile is the default of all four; they may differ",
    f"{values.ACTOR}.fsdp_config.use_torch_compile": "as above",
    "actor_rollout_ref.ref.use_torch_compile": "as above",
    "actor_rollout_ref.ref.fsdp_config.use_torch_compile": "as above",
    f"{values.MODEL}.use_remove_padding": "cluster=cpu pads, which is faster there; only this key is read",
    f"{values.ROLLOUT}.enforce_eager": "cluster.enforce_eager is its default; only this key is read",
    f"{values.ACTOR}.loss_scale_factor": "base=dr_grpo gives the usual constant; any other is a choice",
}
"""Keys with an interpolation in configs/ that is only a default -> why they may be overridden."""


def refused(monkeypatch, capsys, *overrides: str) -> str:
    """The one sentence with which a command line is refused."""
    code, out, err = check(monkeypatch, capsys, *overrides)
    assert code == 2, (code, out, err)
    assert "Traceback" not in err and out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def interpolated(node: DictConfig, prefix: str) -> Iterator[tuple[str, str]]:
    """Key and text of every value that looks something up."""
    for name in node:
        key, raw = f"{prefix}{name}", node._get_node(name)
        if isinstance(raw, DictConfig) and not raw._is_interpolation() and not raw._is_none():
            yield from interpolated(raw, f"{key}.")
        elif "${" in str(text := OmegaConf.to_container(node, resolve=False)[name]):
            yield key, str(text)


def lookups() -> list[tuple[str, str]]:
    """Every key of configs/ whose value is looked up in the configuration, the recipe's own sections left out."""
    found = {}
    for file in sorted(CONFIGS.rglob("*.yaml")):
        group = file.relative_to(CONFIGS).parts[0]
        if group in ("hydra", "evaluate.yaml", "lab.yaml", "protocol"):
            continue
        section = f"{PACKAGES[group]}." if group in PACKAGES else ""
        for key, text in interpolated(OmegaConf.load(file), section):
            if key.split(".")[0] not in OURS | {"hydra"} and "${oc.env:" not in text:
                found[key] = text
    return sorted(found.items())


def test_the_walk_finds_what_the_files_hold():
    found = dict(lookups())
    assert len(found) >= 25
    assert found["actor_rollout_ref.model.path"] == "${model.path}"
    assert found["data.seed"] == "${seed}"
    assert found["actor_rollout_ref.actor.fsdp_config.methods"] == "['${method}']"
    assert found["actor_rollout_ref.rollout.checkpoint_engine.backend"] == "${cluster.weight_transfer}"


@pytest.mark.parametrize("key, text", lookups())
def test_every_key_that_is_looked_up_has_an_owner(key, text):
    assert keys.TRAINING.owner(key) is not None or key in FREE, f"{key}: {text}: add it to keys.OWNED"


@pytest.mark.parametrize("key", [*keys.OWNED, *keys.FIXED])
def test_every_owned_key_is_refused(key, monkeypatch, capsys):
    parent, _, leaf = key.rpartition(".")
    spellings = [f"{key}=x", f"+{key}=x", f"++{key}=x", f"~{key}", f"++{key}.below=x"]
    spellings += [f"{parent}={{{leaf}: x}}"] if parent else []
    for spelling in spellings:
        assert key in refused(monkeypatch, capsys, spelling), spelling
    use = refused(monkeypatch, capsys, f"{key}=x")
    assert keys.OWNED.get(key, keys.FIXED.get(key)) in use


def test_a_fixed_key_may_be_given_its_value(compose, monkeypatch, capsys):
    """Most scripts for verl say rollout.name=vllm; null is refused, for a mode may set the key."""
    config = compose()
    fixed = {key: OmegaConf.select(config, key) for key in keys.FIXED}
    same = {key: value for key, value in fixed.items() if isinstance(value, str | bool)}
    rollout = "actor_rollout_ref.rollout"
    assert {f"{rollout}.name", f"{rollout}.mode", f"{rollout}.val_kwargs.do_sample", "trainer.use_v1"} <= same.keys()
    assert keys.check_overrides([f"{key}={value}" for key, value in same.items()]) == []
    assert keys.check_overrides([f"{rollout}={{name: vllm, n: 4}}", "reward.reward_model.enable=False"]) == []
    for override in (f"{rollout}.name=sglang", f"{rollout}.mode=sync", "trainer.use_v1=1"):
        (sentence,) = keys.check_overrides([override])
        assert sentence.startswith(f"{override}: ") and "cannot be changed" in sentence
    assert len(keys.check_overrides([f"{rollout}.checkpoint_engine.custom_backend_module=null"])) == 1
    assert len(keys.check_overrides([f"{rollout}.name=vllm"], keys.EVALUATION)) == 1
    code, _, err = check(monkeypatch, capsys, f"{rollout}.name=vllm", f"{rollout}.mode=async")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("key", [key for key in keys.OWNED if key not in ("run.experiment",)])
def test_what_is_to_be_used_instead_exists(key, compose):
    config = compose()
    first = keys.OWNED[key].replace(",", " ").split()[0]
    name = first.partition("=")[0]
    assert (
        name == "the" or name in keys.GROUPS or OmegaConf.select(config, name, default=values.MISSING) != values.MISSING
    )


def test_what_a_default_gives_may_be_overridden(compose):
    for overrides in (
        ["actor_rollout_ref.rollout.max_model_len=100"],
        ["base=dr_grpo", "actor_rollout_ref.actor.loss_scale_factor=7"],
    ):
        assert rules.check_config(compose(*overrides)) == []


KIT = (
    *("actor_rollout_ref.model.override_config.attn_implementation=sdpa", "cluster.gpus_per_node=1"),
    *("actor_rollout_ref.rollout.enforce_eager=true", "actor_rollout_ref.actor.use_torch_compile=false"),
    *("actor_rollout_ref.actor.fsdp_config.use_torch_compile=false", "+cluster.env.GLOO_SOCKET_IFNAME=lo"),
    *("transfer_queue.backend.SimpleStorage.num_data_storage_units=1", "actor_rollout_ref.rollout.agent.num_workers=1"),
    *("reward.num_workers=1", "actor_rollout_ref.rollout.gpu_memory_utilization=0.3", "trainer.save_freq=-1"),
    *("actor_rollout_ref.rollout.gpu_memory_utilization=0.35", "cluster.num_cpus=16", "run.prepare_command=null"),
    *("model.path=/somewhere", "model.context_length=2048", "trainer.val_before_train=false", "run.export=false"),
)


def test_a_benchmark_on_one_gpu_is_possible(monkeypatch, capsys):
    code, out, err = check(monkeypatch, capsys, "experiment=tiny_cpu", "cluster=gpu_1x8", *KIT)
    assert (code, err) == (0, "")
    note = "note: actor_rollout_ref.rollout.gpu_memory_utilization is given 2 times: "
    assert out.splitlines()[0] == f"{note}actor_rollout_ref.rollout.gpu_memory_utilization=0.35 is used"


BAD = [
    ("data.train_files=[5]", "a non-empty list"),
    ("data.train_files=[]", "a non-empty list"),
    ("actor_rollout_ref.actor.clip_ratio=0.3", "clip_ratio_low"),
    ("actor_rollout_ref.rollout.n=1", "at least 2"),
    ("base=grop", "did you mean grpo?"),
    ("method=peac", "no method peac: did you mean paec or pear?"),
    ("method=omegaconf", "method=omegaconf: is a module: name its class, method=omegaconf.CLASS"),
    *(
        (f"{group}={value}", f"{group}={value}: a run has one {group}: write {group}={names[0]}{also}")
        for group, names, also in (
            ("method", ("clip_higher", "gspo"), " also=[gspo]"),
            ("base", ("dapo", "dr_grpo"), ""),
            ("mode", ("sync", "colocate_async"), ""),
            ("experiment", ("tiny_cpu", "qwen7b"), ""),
            ("cluster", ("cpu", "gpu_1x8"), ""),
        )
        for value in (f"[{','.join(names)}]", ",".join(names))
    ),
    ("run.name=a,b", "has several values: write run.name=[a,b] for a list, 'run.name=\"a,b\"' for a text"),
    ("method=siiren", "did you mean siren?"),
    ("experiment=qwen7", "did you mean qwen7b?"),
    ("mode=asinc", "did you mean"),
    ("cluster=gpu", "gpu_1x8"),
    ("model=5", "by name"),
    ("also=clip_hihger", "did you mean clip_higher?"),
    ("also=[clip_cov,clip_cov]", "name every method once"),
    ("also=paec", "name every method once"),
    ("~cluster", "choose another"),
    ("~trainer.save_freq", "give it a value"),
    ("trainer=null", "one by one"),
    ("actor_rollout_ref=5", "one by one"),
    ("run=[]", "one by one"),
    ("cluster.env=null", "one by one"),
    ("+foo.bar=1", "no section foo"),
    ("+trainr.save_freq=1", "did you mean trainer?"),
    ("+method=clip_cov", "more than once"),
    ("trainer.save_frq=1", "did you mean trainer.save_freq?"),
    ("method.rhoo=0.7", "did you mean method.rho?"),
    ("method.statistics=exact", "this field is now called method.statistics_from"),
    ("also.siren.statistics=step", "this field is now called also.siren.statistics_from"),
    ("run.root=/tmp/ü", "'run.root=\"/tmp/ü\"'"),
    ("run.root=/tmp/it's", "run.root"),
    ("run.name", "key=value"),
    ("--dryrun", "did you mean --dry-run?"),
    ("-z", "-z: unknown option"),
    ("=3", "write key=value"),
    ("run.directory=null", "non-empty text"),
    ("run.root=5", "non-empty text, and this is a number: write 'run.root=\"5\"'"),
    ("run.name=1e3", "run.name=1000.0: must be non-empty text, and this is a number: write 'run.name=\"1e3\"'"),
    ("run.name=true", "and this is true or false: write 'run.name=\"true\"'"),
    ("data.train_files=[~/x.parquet]", """special characters: 'data.train_files=["~/x.parquet"]'"""),
    ("model.path=null", "non-empty text"),
    ("model.path=", "non-empty text"),
    ("model={path: /x, nope: 1}", "nope"),
    ("data.curriculum=5", "curriculum=none"),
    ("data@data=countdown", "write data=..."),
    ("experiment=null", "by name"),
    ("transfer_queue=null", "one by one"),
    ("~method.rho", "give it a value"),
    ("algorithm.rollout_correction=null", "one by one"),
    ("cluster.env.NEW=1", "+cluster.env.NEW=..."),
    ("+cluster.env.NEW=[1]", "text or a number"),
    ("seed=${seed}", "Recursive interpolation"),
    ("hydra.searchpath=[]", "cannot be changed"),
    ("actor_rollout_ref.actor.optim.betas=[0.9]", "two numbers"),
    ("trainer.total_training_steps=99999999999999999999", "must be an integer"),
]
"""Refused before or after them."""


@pytest.mark.parametrize("override, words", BAD)
def test_bad_overrides(override, words, monkeypatch, capsys):
    sentence = refused(monkeypatch, capsys, override)
    assert words in sentence and keys.key_of(override).split(".")[-1] in sentence


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["method=none", "method.rho=0.7"], "method.rho: method none has no field rho (its fields: none); "),
        (["also=clip_higher", "also.clip_higher.rho=1"], "also.clip_higher.rho: method clip_higher has no field rho"),
        (["curriculum=semantic_entropy", "data.train_files=null"], "data.train_files=null: must be a file"),
        (["method=custom", "method.class_path=5"], "method.class_path=5: method=custom needs the import path"),
        (["also=clip_higher", "also.clip_higher=5"], "also.clip_higher is a section:"),
        (["--dry-run"], "--check and --dry-run: give only one;"),
        (["method=clip_cov", "also=clip_cov"], "also=clip_cov: clip_cov is already active"),
        (["algorithm.adv_estimator=rloo", "actor_rollout_ref.rollout.n=1"], "draw at least 2"),
    ],
)
def test_bad_combinations(overrides, words, monkeypatch, capsys):
    assert words in refused(monkeypatch, capsys, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm.adv_estimator=reinforce_plus_plus", "actor_rollout_ref.rollout.n=1"],
        ["actor_rollout_ref.actor.policy_loss.loss_mode=dppo_tv", "actor_rollout_ref.actor.clip_ratio=0.3"],
        ["data.train_files=a.parquet", "data.val_files=[a.parquet,b.parquet]"],
        ["lora.rank=8", "lora.target_modules=[q_proj,v_proj]"],
        [f"seed={2**32 - values.REPLICAS}", "trainer.save_freq=-1", "trainer.test_freq=-1"],
        ["trainer={save_freq: 5}", "++trainer.val_before_train=false", "+cluster.env.NAME=1"],
        ['run.root="/tmp/ü ñ"', "actor_rollout_ref.actor.fsdp_config={fused_head: true}"],
    ],
)
def test_good_overrides(overrides, monkeypatch, capsys):
    code, out, err = check(monkeypatch, capsys, *overrides)
    assert (code, err) == (0, "") and out.startswith("the configuration of tiny_cpu-paec-")


def test_a_repeated_key_gives_a_note(monkeypatch, capsys):
    code, out, _ = check(monkeypatch, capsys, "seed=1", "method=none", "seed=2", "+run.name=x", "++run.name=y")
    assert "note: seed is given 2 times: seed=2 is used" in out.splitlines()


def test_verls_timeout_of_nccl_is_refused_with_the_one_that_holds():
    (sentence,) = keys.check_overrides(["actor_rollout_ref.nccl_timeout=7200"])
    assert sentence.endswith(
        "cannot be changed: verl does not read it, and PyTorch's 30 minutes hold; use run.stall_timeout for the run"
    )
    assert default_pg_timeout == timedelta(minutes=30)
