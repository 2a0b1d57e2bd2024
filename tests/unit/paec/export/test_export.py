"""A checkpoint of any number of ranks becomes one and the same Hugging Face folder, whole or not at all.

The checkpoints are verl's own, saved by its FSDP2 engine under torchrun (gloo).
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_worker import PROMPT, Canary
from omegaconf import OmegaConf
from ranks import torchrun_cases
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2ForCausalLM

from data_prep import countdown, tiny_model
from data_prep.files import sha256
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import write_json
from recipe.paec.config.resolve import run_suffix
from recipe.paec.export import command as export_command
from recipe.paec.export import huggingface, model_card
from recipe.paec.run import checkpoints

STEP = 3
CASE = {"model": "tied", "sp": 1, "lora": 0, "fsdp_size": -1}
ONE_RANK = [
    {**CASE, "name": "tied-1"},
    {**CASE, "name": "untied-1", "model": "untied"},
    {**CASE, "name": "lora-1", "lora": 2},
]
TWO_RANKS = [
    {**CASE, "name": "tied-2"},
    {**CASE, "name": "tied-2-ulysses", "sp": 2},
    {**CASE, "name": "tied-2-replicated", "fsdp_size": 1},
    {**CASE, "name": "untied-2", "model": "untied"},
    {**CASE, "name": "lora-2", "lora": 2},
]


@pytest.fixture(scope="module")
def work(tmp_path_factory, compose) -> Path:
    """Two models and, in the checkpoints/ of a run, a checkpoint of each case."""
    run = tmp_path_factory.mktemp("runs") / "tiny-paec"
    work = run / "checkpoints"
    work.mkdir(parents=True)
    tiny_model.build(work / "tied")
    tokens = tiny_model.tokenizer()
    config = tiny_model.config(tokens)
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    tiny_model.save(Qwen2ForCausalLM(config), tokens, work / "untied")
    countdown.write(run / "data", train=8, validation=8)
    torchrun_cases("checkpoint_worker.py", work, 1, ONE_RANK, timeout=300)
    torchrun_cases("checkpoint_worker.py", work, 2, TWO_RANKS, timeout=300)
    train_file = run / "data" / "train.parquet"
    (run / "data" / "train.manifest.json").write_text("{}\n")
    config = compose(
        "experiment=tiny_cpu", "method.rho=0.7", f"data.train_files={train_file}", "run.name=tiny-paec",
        "actor_rollout_ref.rollout.temperature=0.7", "actor_rollout_ref.rollout.top_p=0.9",
        "actor_rollout_ref.rollout.top_k=20",
    )  # fmt: skip
    (run / "config.yaml").write_text(OmegaConf.to_yaml(config))
    write_json(run / "versions.json", {"verl": "0.9.1", "git_commit": "c0ffee", "vllm": None})
    (run / "metrics.jsonl").write_text(
        '{"step": 2, "val/countdown/avg@4": 0.1}\n{"step": 3, "val/countdown/avg@4": 0.4321, "reward/format": 1.0}\n'
    )
    identity = {
        "method": "paec",
        "method.rho": 0.7,
        "model": "abc/123",
        "data.train_files": [str(train_file)],
        "data.train_batch_size": 16,
        "workers": 2,
    }
    for case in ONE_RANK + TWO_RANKS:
        # What the trainer writes last; without digests, so that the export itself meets what is wrong with a shard.
        state = {"format": checkpoints.FORMAT, "step": STEP, "identity": identity, "methods": {}, "score": None}
        state["files"] = {}
        write_json(work / case["name"] / "paec_state.json", state)
    return work


def test_a_changed_checkpoint(work, tmp_path):
    """Found by the digests in its state, before anything is read."""
    folder = shutil.copytree(work / "tied-1", tmp_path / f"global_step_{STEP}")
    checkpoints.commit(tmp_path, STEP, json.loads((folder / "paec_state.json").read_text())["identity"], None)
    (folder / "actor" / "fsdp_config.json").write_text('{"world_size": 2}')
    with pytest.raises(UserError, match="is damaged: actor/fsdp_config.json has"):
        huggingface.export(folder, tmp_path / "target")


@pytest.fixture(scope="module")
def exported(work, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exported")
    for case in ONE_RANK + TWO_RANKS:
        huggingface.export(work / case["name"], root / case["name"])
    return {case["name"]: root / case["name"] for case in ONE_RANK + TWO_RANKS}


@pytest.mark.parametrize("case", ONE_RANK + TWO_RANKS, ids=lambda case: case["name"])
def test_logits_are_those_of_the_sharded_parameters(work, exported, case):
    model = AutoModelForCausalLM.from_pretrained(exported[case["name"]])
    assert model.dtype == torch.float32
    with torch.no_grad():
        logits = model(PROMPT).logits
        base = AutoModelForCausalLM.from_pretrained(work / case["model"])(PROMPT).logits
    wanted = torch.load(work / f"{case['name'].removesuffix('-ulysses')}.pt")["logits"]  # the same parameters
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
    assert (logits - base).abs().max() > 0.01, "the checkpoint must differ from the base model to say anything"
    assert model.generate(PROMPT, max_new_tokens=4).shape[1] in range(13, 17)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("tied-1", "tied-2"),
        ("tied-1", "tied-2-ulysses"),
        ("tied-1", "tied-2-replicated"),
        ("untied-1", "untied-2"),
        ("lora-1", "lora-2"),
    ],
)
def test_one_and_two_ranks_give_the_same_bits(exported, one, two):
    first, second = (load_file(exported[name] / "model.safetensors") for name in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tied_and_untied_embeddings(exported):
    assert "lm_head.weight" not in load_file(exported["tied-1"] / "model.safetensors")
    untied = load_file(exported["untied-1"] / "model.safetensors")
    assert not torch.equal(untied["lm_head.weight"], untied["model.embed_tokens.weight"])


def test_an_adapter_is_merged(exported):
    names = load_file(exported["lora-1"] / "model.safetensors").keys()
    assert names == load_file(exported["tied-1"] / "model.safetensors").keys()


def test_precision(work, tmp_path):
    """`--dtype`, else that of the rollouts; a bfloat16 folder is the rounded float32 one."""
    huggingface.export(work / "tied-1", tmp_path / "bf16", dtype="bfloat16")
    huggingface.export(work / "tied-1", tmp_path / "fp32")
    rounded, exact = (load_file(tmp_path / name / "model.safetensors") for name in ("bf16", "fp32"))
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "bf16").dtype == torch.bfloat16
    assert "| precision of the weights | bfloat16 |" in (tmp_path / "bf16" / "README.md").read_text()


def test_tokenizer_and_generation(work, exported):
    folder = exported["tied-2-ulysses"]
    assert "attn_implementation" not in (folder / "config.json").read_text()
    assert (folder / "tokenizer.json").read_bytes() == (work / "tied" / "tokenizer.json").read_bytes()
    assert (
        AutoTokenizer.from_pretrained(folder).chat_template
        == AutoTokenizer.from_pretrained(work / "tied").chat_template
    )
    found = GenerationConfig.from_pretrained(folder)
    assert (found.do_sample, found.temperature, found.top_p, found.top_k) == (True, 0.7, 0.9, 20)
    assert (found.eos_token_id, found.pad_token_id) == (258, 256)


def test_model_card(work, exported):
    card = (exported["tied-2"] / "README.md").read_text()
    run = work.parent
    for line in (
        "# model after 3 steps of paec",
        "| step | 3 |",
        "| workers | 2 |",
        "| sampling in training | temperature 0.7, top_p 0.9, top_k 20 |",
        "| rho | 0.7 |",
        f"| train.parquet | `{sha256(run / 'data' / 'train.parquet')}` |",
        f"| train.manifest.json | `{sha256(run / 'data' / 'train.manifest.json')}` |",
        "| countdown/avg@4 | 0.4321 |",
        "| git_commit | c0ffee |",
        "Its license is that of the base model.",
    ):
        assert line in card, card
    assert "python -m recipe.paec.train experiment=tiny_cpu method.rho=0.7 data.train_files=train.parquet" in card
    assert "0.1000" not in card, "a score of another step"


def test_a_base_model_of_the_hub(work):
    """The configuration names its folder in the cache; the card names what others can download."""
    config = OmegaConf.load(work.parent / "config.yaml")
    config.model.path = "/home/me/.cache/huggingface/hub/models--Qwen--Qwen2.5-Math-7B/snapshots/b101308fe89651ea"
    card = model_card.model_card(checkpoints.read(work / "tied-2"), config, "bfloat16")
    assert "base_model: Qwen/Qwen2.5-Math-7B\n" in card
    assert "# Qwen2.5-Math-7B after 3 steps of paec" in card
    assert "| base model | Qwen/Qwen2.5-Math-7B (revision b101308fe89651ea) |" in card


def test_no_local_path_is_in_the_card(work, compose, tmp_path):
    """Base model, data, run and command are named without the folders they lie in on this machine."""
    secret = tmp_path / "home" / "alice smith" / "secret-project"
    for name in ("a/train.parquet", "b/train.parquet"):
        (secret / name).parent.mkdir(parents=True, exist_ok=True)
        (secret / name).write_text(name)
    files = [str(secret / name) for name in ("a/train.parquet", "b/train.parquet", "gone.parquet")]
    listed = ",".join(f"'{file}'" for file in files)
    config = compose(
        "experiment=tiny_cpu",
        "method.rho=0.6",
        f"model.path='{secret}/my model'",
        f"data.train_files=[{listed}]",
        "data.val_files=../secret-project/val.parquet",
        f"run.root='{secret}/outputs'",
        f"run.prepare_dir='{secret}/prepared'",
        "+data.note='~/secret-project/v.parquet'",
        "+data.more={x:/home/alice/y,z:1}",
        r"+data.escaped=/home/alice\,bob/z",
    )
    checkpoint = checkpoints.read(work / "tied-2")
    checkpoint.state["identity"]["data.train_files"] = files
    card = model_card.model_card(checkpoint, config, "float32")
    for word in ("alice", "smith", "secret", "bob", "home", str(tmp_path)):
        assert word not in card, word
    assert "/" not in card.partition("## Reproduction")[2]
    for line in (
        "# my model after 3 steps of paec",
        "| base model | my model |",
        f"| train.parquet | `{sha256(secret / 'a/train.parquet')}` |",
        f"| train.parquet | `{sha256(secret / 'b/train.parquet')}` |",
        "| gone.parquet | no longer exists |",
        "data.val_files=val.parquet",
        "'+data.more={x:y,z:1}'",
    ):
        assert line in card, card
    assert "base_model:" not in card and "run.root" not in card


def test_a_runs_name_is_shown_without_folders():
    """`runs.run_suffix` puts overrides into it."""
    overrides = ["model.path='/home/alice smith/m'", "method.rho=0.6"]
    name = "tiny_cpu-paec" + run_suffix(overrides)
    assert name == "tiny_cpu-paec-rho=0.6,model.path=__home_alice_smith_m_"
    assert model_card._run_name(name, overrides, "m") == "tiny_cpu-paec-rho=0.6,model.path=_m_"
    assert model_card._run_name("mine", overrides, "m") == "mine"


def test_a_hub_id_stays_in_the_command():
    base = "Qwen/Qwen2.5-Math-7B"
    given = [f"model.path={base}", "run.name=x", "reward.custom_reward_function.path=pkg://recipe.paec.rollout.rewards"]
    assert model_card._reproduction(given, base) == [given[0], given[2]]
    assert model_card._reproduction(["model.path=models/Qwen"], "Qwen") == ["model.path=Qwen"]


def test_no_local_path_is_in_an_exported_folder(work, exported):
    for name, folder in exported.items():
        for file in folder.iterdir():
            if file.suffix in (".json", ".md", ".jinja"):
                assert str(work.parent.parent) not in file.read_text(), (name, file.name)


def test_a_checkpoint_away_from_its_run(work, tmp_path):
    """The weights and the method are known still; what is not known is not made up."""
    shutil.copytree(work / "tied-2", tmp_path / "global_step_3")
    huggingface.export(tmp_path / "global_step_3", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| base model | unknown |" in card and "its command is not known" in card and "| rho | 0.7 |" in card
    record = json.loads((tmp_path / "model" / "paec_export.json").read_text())
    assert (record["run"], record["step"]) == (None, STEP)
    assert record["files"] == sorted(path.name for path in (tmp_path / "model").iterdir())
    assert GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id == 258


@pytest.mark.parametrize("case", ONE_RANK + TWO_RANKS, ids=lambda case: case["name"])
def test_a_resume_reads_tensors_only(work, case):
    """verl's loading of its own checkpoints, parameters, optimizer and random state, with all but tensors refused."""
    result = torch.load(work / f"{case['name']}.pt")
    assert result["resumed"]
    if case in ONE_RANK:
        assert f"{case['name']}.planted: a file contains something other than tensors" in result["refused"]
    assert not (work / f"{case['name']}.canary").exists()


# ---- what cannot be exported -----------------------------------------------------------------------------------------


@pytest.fixture
def copy(work, tmp_path) -> Path:
    """A checkpoint to be damaged."""
    shutil.copytree(work / "tied-2", tmp_path / "global_step_3")
    return tmp_path / "global_step_3"


def cut_off(actor: Path) -> None:
    shard = actor / "model_world_size_2_rank_1.pt"
    shard.write_bytes(shard.read_bytes()[:1000])


def repeated(actor: Path) -> None:
    shutil.copyfile(actor / "model_world_size_2_rank_0.pt", actor / "model_world_size_2_rank_1.pt")


def of_another(actor: Path) -> None:
    config = json.loads((actor / "huggingface" / "config.json").read_text())
    (actor / "huggingface" / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda actor: (actor.parent / "paec_state.json").unlink(), "paec_state.json is missing"),
        (lambda actor: (actor / "model_world_size_2_rank_1.pt").unlink(), "rank_1.pt is missing"),
        (lambda actor: (actor / "fsdp_config.json").unlink(), "fsdp_config.json"),
        (cut_off, "rank_1.pt is damaged"),
        (repeated, "the files are from different checkpoints"),
        (of_another, "do not match its config.json"),
    ],
)
def test_damaged_checkpoints(copy, tmp_path, damage, sentence):
    damage(copy / "actor")
    with pytest.raises(UserError, match=sentence) as error:
        huggingface.export(copy, tmp_path / "model")
    assert len(error.value.errors) == 1 and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_3"], "nothing half-written"


def test_a_shard_is_never_executed(copy, tmp_path):
    canary = tmp_path / "canary"
    torch.save({"weight": Canary(canary)}, copy / "actor" / "model_world_size_2_rank_0.pt")
    with pytest.raises(UserError, match="rank_0.pt: contains something other than tensors"):
        huggingface.export(copy, tmp_path / "model")
    assert not canary.exists()
    with open(copy / "actor" / "model_world_size_2_rank_0.pt", "rb") as stream:
        torch.load(stream, weights_only=False)
    assert canary.exists(), "the canary must work for its absence to say anything"
    (copy / "actor" / "model_world_size_2_rank_0.pt").write_bytes(pickle.dumps(Canary(tmp_path / "second")))
    with pytest.raises(UserError, match="rank_0.pt"):
        huggingface.export(copy, tmp_path / "model")
    assert not (tmp_path / "second").exists()


def test_an_existing_target(work, tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    huggingface.export(work / "tied-1", target)  # an empty folder is allowed
    weights = (target / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="exists and is not empty"):
        huggingface.export(work / "untied-1", target)
    assert (target / "model.safetensors").read_bytes() == weights
    (target / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="notes.txt is not part of the export"):
        huggingface.export(work / "untied-1", target, replace=True)
    assert (target / "model.safetensors").read_bytes() == weights
    (target / "notes.txt").rename(tmp_path / "notes.txt")
    huggingface.export(work / "untied-1", target, replace=True)
    assert "lm_head.weight" in load_file(target / "model.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "notes.txt"]


def test_no_room(work, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**20, 2**20 - 1000, 1000))
    with pytest.raises(UserError, match="free some space"):
        huggingface.export(work / "tied-1", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_command_line(work, tmp_path):
    """No platform has to be named; errors are one sentence and exit code 2."""
    env = {key: value for key, value in os.environ.items() if key != "VERL_PLATFORM"}
    command = [sys.executable, "-m", "recipe.paec.export"]
    done = subprocess.run(
        [*command, str(work / "tied-2"), str(tmp_path / "model"), "--dtype", "bfloat16"],
        env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "writing 0.00 GiB in bfloat16" in done.stdout and (tmp_path / "model" / "model.safetensors").is_file()
    bad = subprocess.run(
        [*command, str(work), str(tmp_path / "other")], env=env, capture_output=True, text=True, timeout=120
    )
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1 and bad.stderr.startswith("error: ") and "global_step_N" in bad.stderr


def test_errors_reach_the_one_who_started_it(copy, tmp_path):
    cut_off(copy / "actor")
    with pytest.raises(UserError, match="failed: .*rank_1.pt is damaged.*export.log"):
        huggingface.export_in_process(copy, tmp_path / "model", tmp_path / "export.log")


# ---- which checkpoint ------------------------------------------------------------------------------------------------


def saved(run: Path, *steps: int) -> Path:
    """A run with checkpoints that hold next to nothing."""
    for step in steps:
        (run / "checkpoints" / f"global_step_{step}").mkdir(parents=True)
        (run / "checkpoints" / f"global_step_{step}" / "weights").write_text("x")
        checkpoints.commit(run / "checkpoints", step, {"method": "none"}, {})
    return run


def test_a_run_is_its_newest_whole_checkpoint(tmp_path):
    run = saved(tmp_path / "run", 2, 10)
    newest, older = (run / "checkpoints" / f"global_step_{step}" for step in (10, 2))
    assert huggingface.checkpoint_in(run) == huggingface.checkpoint_in(run / "checkpoints") == newest
    assert huggingface.checkpoint_in(older) == older
    (newest / "weights").write_text("changed")
    assert huggingface.checkpoint_in(run) == older
    (older / "weights").unlink()
    with pytest.raises(UserError, match="weights is missing\nno checkpoint in .*checkpoints is complete"):
        huggingface.checkpoint_in(run)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            ["{}/nowhere"],
            "error: {}/nowhere: does not exist: give a folder checkpoints/global_step_N of a run, or a run",
        ),
        (
            ["{}/nowhere", "{}/out"],
            "error: {}/nowhere: does not exist: give a folder checkpoints/global_step_N of a run",
        ),
        (["{}/run"], "error: name the folder to create: python -m recipe.paec.export {}/run TARGET"),
        (
            ["{}/empty", "{}/out"],
            "error: {}/empty: the run has no checkpoint yet (trainer.save_freq): train it first",
        ),
        (["{}/run/checkpoints/global_step_1/..", "{}/run"], "error: {}/run exists and is not empty"),
        (
            ["{}", "{}/out"],
            "error: {}: paec_state.json is missing, so this recipe did not finish saving it: give a folder",
        ),
    ],
)
def test_what_cannot_be_exported(arguments, sentence, tmp_path, monkeypatch, capsys):
    saved(tmp_path / "run", 1)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["export", *(argument.format(tmp_path) for argument in arguments)])
    assert export_command.main() == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(sentence.format(tmp_path, tmp_path)) and not (tmp_path / "out").exists()
