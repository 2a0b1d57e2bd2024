"""Every bad override is refused in one sentence that names its key, before anything is imported or started."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from omegaconf import DictConfig, OmegaConf

from recipe.paec.common.repository import CONFIGS, REPOSITORY
from recipe.paec.config import keys, rules, values
from recipe.paec.doctor import inputs
from recipe.paec.train import command as train_command

OURS = {"seed", "method", "also", "run", "model", "lora", "cluster"}
"""Top-level keys to which an interpolation makes another key the recipe's own."""
PACKAGES = {"data": "data", "model": "model", "method": "method"}
"""Groups of configs/ whose files have keys below a section, not at the top."""


def exit_code(monkeypatch, *overrides: str) -> int:
    """Of `python -m recipe.paec.train --check`, in this process."""
    monkeypatch.setattr(sys, "argv", ["train", "--check", *overrides])
    before = signal.getsignal(signal.SIGTERM)
    try:
        return train_command.main()
    except SystemExit as ended:
        return ended.code
    finally:
        signal.signal(signal.SIGTERM, before)


def check(monkeypatch, capsys, *overrides: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the same."""
    code = exit_code(monkeypatch, *overrides)
    said = capsys.readouterr()
    return code, said.out, said.err


def refused(monkeypatch, capsys, *overrides: str) -> str:
    """The one sentence with which a command line is refused."""
    code, out, err = check(monkeypatch, capsys, *overrides)
    assert code == 2, (code, out, err)
    assert "Traceback" not in err and out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    return line


# ---- keys that the recipe sets itself --------------------------------------------------------------------------------


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
        if group in ("hydra", "evaluate.yaml", "protocol"):
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
    assert keys.TRAINING.owner(key) is not None or key in keys.FREE, f"{key}: {text}: add it to keys.OWNED"


@pytest.mark.parametrize("key", [*keys.OWNED, *keys.FIXED])
def test_every_owned_key_is_refused(key, monkeypatch, capsys):
    parent, _, leaf = key.rpartition(".")
    spellings = [f"{key}=x", f"+{key}=x", f"++{key}=x", f"~{key}", f"++{key}.below=x"]
    spellings += [f"{parent}={{{leaf}: x}}"] if parent else []
    for spelling in spellings:
        assert key in refused(monkeypatch, capsys, spelling), spelling
    use = refused(monkeypatch, capsys, f"{key}=x")
    assert keys.OWNED.get(key, keys.FIXED.get(key)) in use


@pytest.mark.parametrize("key", [key for key in keys.OWNED if key not in ("run.experiment",)])
def test_what_is_to_be_used_instead_exists(key, compose):
    config = compose()
    first = keys.OWNED[key].replace(",", " ").split()[0]
    name = first.partition("=")[0]
    assert (
        name == "the" or name in keys.GROUPS or OmegaConf.select(config, name, default=values.MISSING) != values.MISSING
    )


def test_what_a_default_gives_may_be_overridden(compose):
    for override in ("actor_rollout_ref.rollout.max_model_len=100", "actor_rollout_ref.actor.loss_scale_factor=7"):
        assert rules.check_config(compose(override)) == []


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


# ---- what a key may hold ---------------------------------------------------------------------------------------------

VALUES = [
    ("actor_rollout_ref.actor.policy_loss.loss_mode=gpso", "did you mean gspo?"),
    ("actor_rollout_ref.actor.loss_agg_mode=token_mean", "did you mean token-mean?"),
    ("algorithm.adv_estimator=nope", "must be one of grpo"),
    ("algorithm.adv_estimator=grpoo", "did you mean grpo?"),
    ("algorithm.adv_estimator=gae", "it needs a critic"),
    ("algorithm.gamma=1.5", "[0, 1]"),
    ("actor_rollout_ref.actor.clip_ratio=-0.2", "must be a number > 0"),
    ("actor_rollout_ref.actor.clip_ratio_low=-0.2", "[0, 1]"),
    ("actor_rollout_ref.actor.clip_ratio_high=-1", ">= 0"),
    ("actor_rollout_ref.actor.clip_ratio_c=1", "> 1"),
    ("actor_rollout_ref.actor.ppo_epochs=0", ">= 1"),
    ("actor_rollout_ref.actor.optim.lr=-1e-6", "> 0"),
    ("actor_rollout_ref.actor.optim.lr=inf", "> 0"),
    ("actor_rollout_ref.actor.optim.lr=fast", "> 0"),
    ("actor_rollout_ref.actor.optim.weight_decay=nan", ">= 0"),
    ("actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=2", "[0, 1]"),
    ("actor_rollout_ref.actor.optim.lr_scheduler_type=cosin", "did you mean cosine?"),
    ("actor_rollout_ref.actor.fsdp_config.fused_head=1", "true or false"),
    ("actor_rollout_ref.actor.fsdp_config.head_chunk_size=0", "an integer >= 1, or null"),
    ("actor_rollout_ref.actor.strategy=megatron", "fsdp2"),
    ("actor_rollout_ref.rollout.gpu_memory_utilization=2", "(0, 1]"),
    ("actor_rollout_ref.rollout.gpu_memory_utilization=0", "(0, 1]"),
    ("actor_rollout_ref.rollout.n=2.5", "must be an integer"),
    ("actor_rollout_ref.rollout.temperature=0", "> 0"),
    ("actor_rollout_ref.rollout.top_p=1.5", "(0, 1]"),
    ("actor_rollout_ref.rollout.top_k=0", "-1"),
    ("actor_rollout_ref.rollout.val_kwargs.temperature=-1", ">= 0"),
    ("actor_rollout_ref.rollout.dtype=int8", "bfloat16"),
    ("actor_rollout_ref.rollout.max_num_seqs=null", "must be an integer"),
    ("data.val_files=null", "a non-empty list"),
    ("data.val_files=5", "a non-empty list"),
    ("data.train_batch_size=-16", ">= 1"),
    ("data.max_response_length=0", ">= 1"),
    ("data.max_prompt_length=12.0", "must be an integer"),
    ("data.shuffle=yep", "true or false"),
    ("data.truncation=cut", "error"),
    ("seed=-1", ">= 0"),
    (f"seed={2**63}", "<= "),
    (f"seed={2**32}", "<= "),
    ("seed=one", "must be an integer"),
    ("lora.target_modules=[]", "all-linear"),
    ("lora.target_modules=q_proj", "all-linear"),
    ("lora.alpha=0", ">= 1"),
    ("lora.rank=-1", ">= 0"),
    ("trainer.val_before_train=maybe", "true or false"),
    ("trainer.save_freq=0", "-1: never"),
    ("trainer.test_freq=0", "-1: never"),
    ("trainer.test_freq=-2", "-1: never"),
    ("trainer.total_training_steps=0", ">= 1"),
    ("trainer.total_training_steps=1e3", "must be an integer"),
    ("trainer.logger=[consol]", "console"),
    ("run.time_limit=0", "> 0"),
    ("run.stall_timeout=nan", "> 0"),
    ("run.fresh=perhaps", "run.fresh"),
    ("cluster.platform=tpu", "cuda"),
    ("cluster.nodes=0", ">= 1"),
    ("model.context_length=-1", ">= 0"),
]
"""Refused by keys.RULES, or by the types of the recipe's own sections."""

BAD = [
    ("data.train_files=[5]", "a non-empty list"),
    ("data.train_files=[]", "a non-empty list"),
    ("actor_rollout_ref.actor.clip_ratio=0.3", "clip_ratio_low"),
    ("actor_rollout_ref.rollout.n=1", "at least 2"),
    ("base=grop", "did you mean grpo?"),
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
    ("run.root=5", "non-empty text"),
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


def key_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def batches() -> list[list[str]]:
    """The values that RULES refuse, so many at once as there are keys: composing takes a second."""
    found: list[list[str]] = []
    for override, _ in VALUES:
        place = next((b for b in found if key_of(override) not in map(key_of, b)), None)
        found.append([override]) if place is None else place.append(override)
    return found


@pytest.fixture(scope="module")
def complaints() -> dict[str, list[str]]:
    """Override of VALUES -> the sentences on its key with which the command line of its batch is refused."""
    sentences: dict[str, list[str]] = {}
    for batch in batches():
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
            code = exit_code(patch, *batch)
        found = said.getvalue().strip().splitlines()
        assert code == 2 and len(found) == len(batch), said.getvalue()
        for override in batch:
            begin = f"error: {key_of(override)}"
            sentences[override] = [line for line in found if line.startswith((f"{begin}=", f"{begin}:"))]
    return sentences


@pytest.mark.parametrize("override, words", VALUES)
def test_bad_values(override, words, complaints):
    (sentence,) = complaints[override]
    assert words in sentence and "Traceback" not in sentence


@pytest.mark.parametrize("override, words", BAD)
def test_bad_overrides(override, words, monkeypatch, capsys):
    sentence = refused(monkeypatch, capsys, override)
    assert words in sentence and key_of(override).split(".")[-1] in sentence


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["method=none", "method.rho=0.7"], "method.rho: method none has no field rho (its fields: none); "),
        (["also=clip_higher", "also.clip_higher.rho=1"], "also.clip_higher.rho: method clip_higher has no field rho"),
        (["curriculum=semantic_entropy", "data.train_files=null"], "data.train_files=null: must be a file"),
        (["method=custom", "method.target=5"], "method.target=5: method=custom needs the import path"),
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


@pytest.mark.parametrize("made", [True, False])
def test_adapters_go_to_layers_that_exist(made, compose, tiny_files, tmp_path, monkeypatch):
    monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files if made else tmp_path))
    to_come = None if made else tmp_path
    good = compose(
        "lora.rank=8", "lora.target_modules=[q_proj,mlp.down_proj]" if made else "lora.target_modules=[q_proj]"
    )
    assert inputs.check_inputs(good, to_come) == []
    (problem,) = inputs.check_inputs(compose("lora.rank=8", "lora.target_modules=[nope,q_proj,proj]"), to_come)
    assert problem.startswith("lora.target_modules: the model has no layer nope, proj; it has down_proj, ")


def test_a_repeated_key_gives_a_note(monkeypatch, capsys):
    code, out, _ = check(monkeypatch, capsys, "seed=1", "method=none", "seed=2", "+run.name=x", "++run.name=y")
    assert "note: seed is given 2 times: seed=2 is used" in out.splitlines()


def test_every_seed_that_is_accepted_can_be_used():
    last = 2**32 - values.REPLICAS
    assert values.SEED.accepts(last) and not values.SEED.accepts(last + 1)
    numpy.random.RandomState(last + values.REPLICAS - 1)
    with pytest.raises(ValueError):
        numpy.random.RandomState(last + values.REPLICAS)


def test_every_rule_is_of_a_key_that_exists(compose):
    config = compose()
    for key in values.RULES:
        assert OmegaConf.select(config, key, default=values.MISSING) is not values.MISSING, key
    assert set(config) == set(keys.TOP_LEVEL)


def test_the_choices_are_verls():
    """In another process: importing verl registers things that other tests want to do themselves."""
    script = (
        "from verl.trainer.ppo import core_algos as c; from verl.utils.tracking import Tracking; import json;"
        "print(json.dumps([sorted(map(str, c.ADV_ESTIMATOR_REGISTRY)), sorted(c.POLICY_LOSS_REGISTRY),"
        "sorted(Tracking.supported_backend)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    estimators, losses, loggers = json.loads(done.stdout.strip().splitlines()[-1])
    assert {name.removeprefix("AdvantageEstimator.").lower() for name in estimators} == {
        *values.ESTIMATORS,
        *values.UNSUPPORTED,
    }
    assert set(losses) - {"method", "bypass_mode"} == set(values.LOSS_MODES)
    assert loggers == sorted(values.LOGGERS)


# ---- the check by itself ---------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from recipe.paec.train import command as train
sys.argv = ["train", "--check", *sys.argv[1:]]
try:
    code = train.main()
except SystemExit as ended:
    code = ended.code
print(sorted({"torch", "verl", "ray", "vllm", "transformers", "pandas", "pyarrow"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize("overrides, code", [([], 0), (["method=siren", "also=clip_higher"], 0), (["seed=-1"], 2)])
def test_the_check_imports_nothing_heavy(overrides, code, tmp_path):
    started = time.monotonic()
    before = time.process_time()
    done = subprocess.run([sys.executable, "-c", SCRIPT, *overrides], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - started < 60 and time.process_time() - before < 60


def test_the_check_prints_the_configuration_when_asked(monkeypatch, capsys):
    _, out, _ = check(monkeypatch, capsys)
    assert len(out.splitlines()) == 1
    _, out, _ = check(monkeypatch, capsys, "--print-config")
    text, verdict = out.rstrip().rsplit("\n", 1)
    assert verdict.startswith("the configuration of tiny_cpu-paec is valid")
    assert OmegaConf.create(text).trainer.nnodes == 1 and "${" not in text


def test_the_check_leaves_nothing(monkeypatch, capsys, tmp_path):
    code, _, _ = check(monkeypatch, capsys, f"run.root={tmp_path / 'runs'}")
    assert code == 0 and list(Path(tmp_path).iterdir()) == []
