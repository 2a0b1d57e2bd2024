"""No secret in a configuration, a command line or a log."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from omegaconf import OmegaConf
from pipeline_runs import REPOSITORY
from planted_secrets import PLANTED

from recipe.paec.common import secrets
from recipe.paec.common.repository import CONFIGS
from recipe.paec.config import rules

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


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
    sentence = "trainer.url contains the value of a secret environment variable"
    assert len([p for p in problems if p.startswith(sentence)]) == 1
    assert not any(value in problem for problem in problems for value in planted.values())


def test_an_empty_secret_is_no_error(compose):
    assert secrets.check_arguments(["+cluster.env.WANDB_API_KEY=", "trainer.save_freq=1", "--dry-run"]) == []


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


def test_files_that_vanish_are_not_scrubbed(planted, tmp_path, monkeypatch):
    """Another process deletes a folder after it was listed."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "train.log").write_text(planted["WANDB_API_KEY"])

    def replaced(file, content, really=secrets.replace_file):
        really(file, content)
        shutil.rmtree(next(folder for folder in folders if folder != file.parent))

    monkeypatch.setattr(secrets, "replace_file", replaced)
    (file,) = secrets.scrub(tmp_path)
    assert file.read_text() == "<hidden>"


def test_short_values_are_not_searched_for(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "step")
    assert secrets.hide("step 3") == "step 3"
