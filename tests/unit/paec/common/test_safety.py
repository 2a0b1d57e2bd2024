"""No secret in a file, no port beyond this machine, and no code out of data: what docs/safety.md says, tried."""

from __future__ import annotations

import ast
import json
import os
import pickle
import random
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy
import psutil
import pytest
import torch
from checkpoint_worker import Canary
from omegaconf import OmegaConf
from pipeline_runs import REPOSITORY, finish, run_directory, start
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep import tiny_model
from recipe.paec.common import ray_access, secrets
from recipe.paec.common.console import complain
from recipe.paec.common.errors import UserError
from recipe.paec.common.prompts import load_tokenizer
from recipe.paec.common.repository import CONFIGS
from recipe.paec.config import rules
from recipe.paec.doctor import inputs
from recipe.paec.run.checkpoints import CheckpointError
from recipe.paec.run.safe_load import FORCE, tensors_only

PLANTED = {"HF_TOKEN": "hf_plantedQ7d2Zk", "WANDB_API_KEY": "wandb-plantedX9f4Lm"}
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


@pytest.fixture
def planted(monkeypatch) -> dict[str, str]:
    """Secrets in the environment."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    return PLANTED


# ---- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "CLIENT_SECRET", "PASSWORD",
     "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN", "api_key", "wandb_api_key", "password", "hf_token", "TOKEN"],
)  # fmt: skip
def test_names_of_secrets(name):
    assert secrets.is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["max_token_len", "ppo_max_token_len_per_gpu", "tokenizer", "TOKENIZERS_PARALLELISM", "prompt_key", "reward_fn_key",
     "RAY_AUTH_TOKEN_PATH", "eos_token", "MAX_TOKENS", "loss_agg_mode", "MONKEY", "HF_HOME", "keep_checkpoints",
     "GOOGLE_APPLICATION_CREDENTIALS"],
)  # fmt: skip
def test_names_of_others(name):
    assert not secrets.is_secret(name)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_nothing_in_the_configuration_looks_like_a_secret(compose, planted, experiment):
    config = compose(f"experiment={experiment}")
    assert secrets.check_config(config) == []
    names = [key.rpartition(".")[2] for key, _ in secrets._leaves(OmegaConf.to_container(config))]
    assert len(names) > 500 and not any(map(secrets.is_secret, names))


@pytest.mark.parametrize(
    ("program", "override"),
    [("train", "+cluster.env.WANDB_API_KEY=on-commandline"), ("evaluate", f"+note=x{PLANTED['HF_TOKEN']}")],
)
def test_a_secret_on_the_command_line_is_refused(planted, tmp_path, program, override):
    """Others see it in the list of processes; the sentence says what to do and does not repeat it."""
    command = [sys.executable, "-m", f"recipe.paec.{program}", override, f"+run.root={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    key = override.lstrip("+").partition("=")[0]
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {key} ") and done.stderr.count("\n") == 1
    assert "commandline" not in done.stderr and PLANTED["HF_TOKEN"] not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_secret_in_a_configuration_file_is_refused(compose, planted):
    """As in `env: {HF_TOKEN: ${oc.env:HF_TOKEN}}`; config.yaml, the logs and the loggers would hold it."""
    config = compose("+cluster.env.HF_TOKEN=${oc.env:HF_TOKEN}", "+trainer.url=https://${oc.env:WANDB_API_KEY}@host")
    problems = rules.check_config(config)
    assert len([p for p in problems if "cluster.env.HF_TOKEN" in p and "export HF_TOKEN=..." in p]) == 1
    assert len([p for p in problems if p.startswith("trainer.url contains a secret")]) == 1
    assert not any(value in problem for problem in problems for value in planted.values())


def test_an_empty_secret_is_no_error(compose):
    assert secrets.check_arguments(["+cluster.env.WANDB_API_KEY=", "trainer.save_freq=1", "--dry-run"]) == []


def test_errors_hide_secrets(planted, capsys):
    complain([f"401 for https://user:{planted['HF_TOKEN']}@host/"])
    assert capsys.readouterr().err == "error: 401 for https://user:<hidden>@host/\n"


def test_logs_are_scrubbed(planted, tmp_path):
    secret = planted["WANDB_API_KEY"]
    for name in ("train.log", "sub/metrics.jsonl", "checkpoints/global_step_1/config.json", "weights.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"login with {secret}\nnext line\n")
    (tmp_path / "clean.log").write_text("nothing\n")
    assert sorted(secrets.scrub(tmp_path)) == [tmp_path / "sub" / "metrics.jsonl", tmp_path / "train.log"]
    assert (tmp_path / "train.log").read_text() == "login with <hidden>\nnext line\n"
    assert secret in (tmp_path / "weights.pt").read_text(), "not a text file of ours"
    assert secrets.scrub(tmp_path) == []


def test_short_values_are_not_searched_for(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "step")
    assert secrets.hide("step 3") == "step 3"


# ---- ports -----------------------------------------------------------------------------------------------------------


def test_the_token_of_a_local_ray(tmp_path):
    with ray_access.private_ray(None, tmp_path) as first:
        file = Path(first["RAY_AUTH_TOKEN_PATH"])
        token = file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and re.fullmatch("[0-9a-f]{64}", token)
        assert first["RAY_AUTH_MODE"] == "token" and first["NCCL_SOCKET_IFNAME"] == "lo"
    assert list(tmp_path.iterdir()) == []
    with ray_access.private_ray(None, tmp_path) as second:
        assert Path(second["RAY_AUTH_TOKEN_PATH"]).read_text() != token


def test_the_token_of_a_running_ray(tmp_path, monkeypatch):
    """Shown where there is one: Ray itself does not look for it when it is given an address."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with ray_access.private_ray("10.0.0.1:6379", tmp_path) as environment:
        assert environment == {} and list(tmp_path.iterdir()) == []
    (tmp_path / "token").touch()
    with ray_access.private_ray("10.0.0.1:6379", tmp_path) as environment:
        assert environment == {"RAY_AUTH_MODE": "token"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_access.private_ray("10.0.0.1:6379", tmp_path) as environment:
        assert environment == {"RAY_AUTH_MODE": "disabled"}


# ---- files that could hold code --------------------------------------------------------------------------------------


def test_remote_code_is_off(compose):
    config = OmegaConf.to_container(compose())
    found = {key: value for key, value in secrets._leaves(config) if key.endswith("trust_remote_code")}
    assert len(found) >= 3 and not any(found.values()), found


@pytest.mark.parametrize("folder", ["recipe", "data_prep"])
def test_every_model_is_loaded_without_its_code(folder):
    calls = 0
    for path in (REPOSITORY / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if re.match(r"Auto\w+\.from_(pretrained|config)$", name):
                calls += 1
                assert keywords.get("trust_remote_code") == "False", f"{path}:{node.lineno}"
            assert name not in ("pickle.load", "pickle.loads"), f"{path}:{node.lineno}"
            assert name != "torch.load" or keywords.get("weights_only") == "True", f"{path}:{node.lineno}"
    assert calls >= 2


@pytest.fixture
def model_with_code(tmp_path) -> tuple[Path, Path]:
    """A model folder whose own modelling, configuration and tokenizer code would create a file; (folder, canary)."""
    folder, canary = tmp_path / "model", tmp_path / "canary"
    tiny_model.build(folder)
    code = [
        "from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer",
        f"open({str(canary)!r}, 'w').close()",
    ]
    bases = {"C": "Qwen2Config", "M": "Qwen2ForCausalLM", "T": "Qwen2Tokenizer"}
    code += [f"class {name}({base}):\n    pass" for name, base in bases.items()]
    (folder / "planted.py").write_text("\n".join(code) + "\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "planted.C", "AutoModelForCausalLM": "planted.M"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["planted.T", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder, canary


def test_a_models_own_code_is_not_executed(model_with_code):
    folder, canary = model_with_code
    load_tokenizer(folder, None, "model", "")
    from verl.workers.config import HFModelConfig

    HFModelConfig(path=str(folder))  # what verl's workers load first: configuration and tokenizer
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    assert not canary.exists()
    AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert canary.exists(), "the canary must work for its absence to say anything"


def test_a_model_that_needs_its_own_code_is_refused_at_once(model_with_code):
    folder, canary = model_with_code
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "planted"}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "tokenizer_class": "PlantedTokenizer"}))
    started = time.monotonic()
    with pytest.raises(UserError, match="model: the tokenizer cannot be loaded"):
        load_tokenizer(folder, None, "model", "")
    assert time.monotonic() - started < 10 and not canary.exists(), "no question on the terminal either"


def test_a_pickled_model_is_not_executed(tmp_path):
    """pytorch_model.bin is read as tensors only, by transformers itself."""
    folder, canary = tmp_path / "model", tmp_path / "canary"
    tiny_model.build(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Canary(canary)}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="[Ww]eights.only|weights_only"):
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    assert not canary.exists()


def test_training_data_is_not_executed(compose, tiny_files, tmp_path):
    file, canary = tmp_path / "train.parquet", tmp_path / "canary"
    file.write_bytes(pickle.dumps(Canary(canary)))
    config = compose(f"data.train_files={file}", f"data.val_files={tiny_files / 'data' / 'validation.parquet'}")
    problems = inputs.check_data(config, None)
    assert len(problems) == 1 and problems[0].startswith("data.train_files") and not canary.exists()


def random_state() -> dict:
    """As verl's checkpoint manager saves it."""
    return {"cpu": torch.get_rng_state(), "numpy": numpy.random.get_state(), "random": random.getstate()}


def test_checkpoints_are_read_as_tensors_only(tmp_path):
    """What verl's checkpoints hold is read although verl asks for all of pickle; anything else is not."""
    safe, bad, canary = tmp_path / "extra.pt", tmp_path / "model.pt", tmp_path / "canary"
    scheduler = {"base_lrs": [1e-6], "last_epoch": 3, "lr_lambdas": [{}]}
    torch.save({"lr_scheduler": scheduler, "rng": random_state()}, safe)
    torch.save({"weight": Canary(canary)}, bad)
    with tensors_only(tmp_path):
        content = torch.load(safe, weights_only=False)
    assert content["lr_scheduler"] == scheduler
    assert numpy.array_equal(content["rng"]["numpy"][1], numpy.random.get_state()[1])
    with pytest.raises(CheckpointError, match=f"{tmp_path}: a file contains something other than tensors"):
        with tensors_only(tmp_path):
            torch.load(bad, weights_only=False)
    assert not canary.exists() and FORCE not in os.environ
    torch.load(bad, weights_only=False)
    assert canary.exists(), "the canary must work for its absence to say anything"


# ---- a real run ------------------------------------------------------------------------------------------------------

ADDRESSES = ("127.", "::1", "::ffff:127.")
OPEN = ("ray::WorkerDict",)
"""Processes with a port on every interface, and why: docs/safety.md (torch's TCPStore)."""


def looked_at(process: subprocess.Popen) -> dict:
    """What anybody on this machine and its network could see of a process tree, until it ends."""
    seen: dict = {"ports": set(), "command_lines": set(), "with_secrets": set(), "output": ""}

    def look() -> None:
        for member in psutil.Process(process.pid).children(recursive=True):
            try:
                name = member.name()
                seen["command_lines"].add(" ".join(member.cmdline()))
                if all(member.environ().get(key) == value for key, value in PLANTED.items()):
                    seen["with_secrets"].add(name)
                for connection in member.net_connections(kind="inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        seen["ports"].add((name, connection.laddr.ip, connection.laddr.port))
            except psutil.Error:
                continue

    deadline = time.monotonic() + 900
    try:
        while process.poll() is None:
            assert time.monotonic() < deadline, "the run is too slow"
            try:
                look()
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
        seen["output"] = finish(process)
    finally:
        process.terminate()
    return seen


@pytest.fixture(scope="module")
def watched(tiny, tmp_path_factory) -> Iterator[dict]:
    """Two steps of training, then an evaluation of the result, with planted secrets, looked at meanwhile."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PLANTED.items():
            patch.setenv(name, value)
        short = ["trainer.total_training_steps=2", "trainer.save_freq=2", "trainer.test_freq=2"]
        training = looked_at(start(tiny, root, *short, "trainer.val_before_train=false"))
        run = run_directory(root)
        command = [sys.executable, "-m", "recipe.paec.evaluate", f"model={run}", "steps=[2]", "protocol=tiny"]
        command += [f"benchmarks=[{tiny / 'data' / 'validation.parquet'}]", "protocol.samples=1"]
        evaluation = looked_at(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY)
        )
        yield {"run": run, "root": root, "training": training, "evaluation": evaluation}


def ray_sessions(seen: dict) -> set[Path]:
    """Folders of the Ray sessions of a process tree."""
    return {Path(found) for line in seen["command_lines"] for found in re.findall(r"--log_dir=(\S+)/logs", line)}


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_secret_is_nowhere(watched):
    """Not in the output, any file of the run and the evaluation, Ray's own logs, or a command line; yet it is used."""
    assert (watched["run"] / "huggingface" / "README.md").is_file(), watched["training"]["output"]
    assert list(watched["run"].rglob("scores.json")), watched["evaluation"]["output"]
    searched = 0
    for seen in (watched["training"], watched["evaluation"]):
        text = seen["output"] + "\n".join(seen["command_lines"])
        (session,) = ray_sessions(seen)
        for file in [*watched["root"].rglob("*"), *session.rglob("*")]:
            if file.is_file():
                searched += 1
                content = file.read_bytes()
                for value in PLANTED.values():
                    assert value.encode() not in content, file
        assert not any(value in text for value in PLANTED.values())
    assert searched > 100
    workers = watched["training"]["with_secrets"]
    for name in ("ray::SeededAgentLoopWorker", "ray::WorkerDict", "ray::GroupServer"):
        assert any(worker.startswith(name) for worker in workers), workers


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_ports_are_on_the_loopback_interface(watched):
    for seen in (watched["training"], watched["evaluation"]):
        assert len(seen["ports"]) > 5
        beyond = {port for port in seen["ports"] if not port[1].startswith(ADDRESSES)}
        assert all(name.startswith(OPEN) for name, _, _ in beyond), beyond
        assert not [port for port in seen["ports"] if port[2] in (8265, 10001)], "Ray's dashboard or client"
    assert len([port for port in watched["training"]["ports"] if not port[1].startswith(ADDRESSES)]) <= 1


@pytest.mark.pipeline
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_planted_checkpoint_is_refused(watched, tiny, tmp_path):
    """A shard that would create a file when unpickled: one sentence, no file."""
    canary = tmp_path / "canary"
    (run,) = (path for path in watched["root"].iterdir() if path.is_dir())
    root = tmp_path / "runs"
    shutil.copytree(run, root / run.name)
    (shard,) = (root / run.name).glob("checkpoints/global_step_2/actor/optim_*.pt")
    torch.save({"state": Canary(canary)}, shard)
    output = finish(start(tiny, root, "trainer.total_training_steps=3", f"run.name={run.name}"))
    assert "a file contains something other than tensors" in output
    assert len([line for line in output.splitlines() if line.startswith("error: ")]) == 2  # the second names the log
    assert not canary.exists()
