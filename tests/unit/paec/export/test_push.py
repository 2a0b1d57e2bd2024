"""The upload, to a stand-in for the hub that answers on loopback; and what is refused before and by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest
from export_cases import STEP, evaluated
from hub_stand_in import TOKEN, serving
from huggingface_hub import ModelCard, constants

from data_prep.files import sha256
from recipe.paec.common.errors import UserError
from recipe.paec.export import command, push

REPOSITORY = "alice/tiny-paec"


@pytest.fixture
def hub():
    with serving() as server:
        yield server


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def pushed(work, tmp_path, hub, monkeypatch, capsys):
    """pushed("--dry-run", ...) -> what `paec export tied-1 model --push ...` returns and prints; no token in it."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))

    def run(*arguments: str, evaluation: bool = True, token: str | None = TOKEN, endpoint: str | None = None) -> Done:
        if evaluation and not (tmp_path / "e").exists():
            evaluated(tmp_path / "e", work / "tied-1")
        monkeypatch.setattr(constants, "ENDPOINT", endpoint or hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        line = [str(work / "tied-1"), str(tmp_path / "model"), "--push", REPOSITORY, *arguments]
        line += ["--evaluation", str(tmp_path / "e")] if evaluation else []
        monkeypatch.setattr(sys, "argv", ["paec export", *line])
        code = command.main()
        printed = capsys.readouterr()
        assert TOKEN not in printed.out + printed.err
        return Done(code, printed.out, printed.err)

    return run


def test_the_server_that_hf_endpoint_names(exported, work, tmp_path, hub):
    """The whole command in a process of its own, as a user starts it, with debug output of the client."""
    evaluated(tmp_path / "e", work / "tied-1")
    model = shutil.copytree(exported["tied-1"], tmp_path / "model")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    env |= {
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_DEBUG": "1",
    }
    line = [str(work / "tied-1"), str(model), "--push", REPOSITORY, "--evaluation", str(tmp_path / "e")]
    shell = [sys.executable, "-m", "recipe.paec.export", *line]
    done = subprocess.run(shell, env=env, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert "model.safetensors" in hub.files[REPOSITORY] and len(hub.messages) == 1


def test_a_dry_run_says_what_an_upload_sends(pushed, hub, tmp_path):
    dry = pushed("--dry-run", token=None)
    assert dry.returncode == 0, dry.stderr
    assert hub.requests == [] and dry.stdout.endswith("dry run: nothing was sent\n")
    assert f"would be uploaded to {hub.url}/{REPOSITORY} (created as a private repository if needed):" in dry.stdout
    assert "model-index:" in dry.stdout and "HuggingFaceH4/aime_2024" in dry.stdout

    done = pushed()
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'model'} is already the export of step {STEP}" in done.stdout
    assert f"uploaded: {hub.url}/{REPOSITORY}/commit/c0ffee" in done.stdout
    sent = {name: content for name, content in hub.files[REPOSITORY].items() if name != ".gitattributes"}
    for name, content in sent.items():
        assert content == (tmp_path / "model" / name).read_bytes()
        assert f"{len(content):,} bytes  sha256 {sha256(tmp_path / 'model' / name)}" in dry.stdout
        assert str(tmp_path).encode() not in content and TOKEN.encode() not in content
    assert f"  {len(sent)} files, " in dry.stdout
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= sent.keys()
    assert "paec_export.json" not in sent, "it names the run's folder"
    assert hub.visibility == {REPOSITORY: "private"} and hub.messages == [f"Step {STEP}, exported by the PAEC recipe"]
    card = ModelCard(sent["README.md"].decode())
    assert [result.metric_name for result in card.data.eval_results][:2] == ["avg@4 (luffy)", "maj@4 (luffy)"]
    assert ("POST", "/api/repos/create") in hub.requests and ("POST", "/api/validate-yaml") in hub.requests


def test_an_earlier_upload_is_followed_by_another_commit_but_strange_files_are_not(pushed, hub):
    assert pushed("--public").returncode == pushed().returncode == 0
    assert hub.visibility == {REPOSITORY: "public"} and len(hub.messages) == 2
    hub.files[REPOSITORY]["model-00002-of-00002.safetensors"] = b"another model's"
    refused = pushed()
    assert refused.returncode == 2 and len(hub.messages) == 2
    assert f"error: {REPOSITORY} already has model-00002-of-00002.safetensors (1 file(s) that are not" in refused.stderr


@pytest.mark.parametrize(
    "part, status, message, sentence",
    [
        ("/repos/create", 403, "no {token}", "refused while creating the repository (403: no <hidden>): the token "),
        (
            "/commit/",
            413,
            "too large",
            "refused while uploading the files (413: too large): correct what this message names",
        ),
        ("/objects/", 403, "expired", "refused while uploading the files (403: "),
        ("/validate-yaml", 400, "bad card", "refused while uploading the files: Invalid metadata in README.md."),
    ],
)  # fmt: skip
def test_refused(pushed, hub, part, status, message, sentence):
    hub.refuse[part] = (status, message)
    done = pushed()
    assert done.returncode == 2 and hub.messages == []
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"error: --push {REPOSITORY}: {sentence}" in line


def test_a_token_that_is_not_valid(pushed, hub):
    hub.token = "another"
    done = pushed()
    assert done.returncode == 2 and hub.files == {}
    assert "refused while creating the repository (401: Invalid credentials" in done.stderr
    assert "the token is not valid: export HF_TOKEN with a token that can write, or run hf auth login" in done.stderr


def test_what_ends_it_before_anything_is_exported(pushed, hub, tmp_path):
    for done, sentence in (
        (
            pushed(token=None),
            "error: --push: there is no token for the hub: export HF_TOKEN with a token that can write",
        ),
        (pushed(evaluation=False), "error: no evaluation of "),
    ):
        assert done.returncode == 2 and done.stderr.startswith(sentence)
    assert hub.requests == [] and not (tmp_path / "model").exists()


def test_no_server(pushed, monkeypatch):
    done = pushed(endpoint="http://127.0.0.1:9")
    assert done.returncode == 2
    assert f"error: --push {REPOSITORY}: http://127.0.0.1:9 cannot be reached while creating" in done.stderr
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = pushed()
    assert offline.returncode == 2 and "error: --push: HF_HUB_OFFLINE is set: unset it, or use --dry" in offline.stderr


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "a b/c", "a/b..c", ""])
def test_names_that_no_repository_has(name):
    assert push.repository_error(name).startswith(f"--push {name}: ")
    assert push.repository_error("Qwen/Qwen2.5-Math-7B") is None


def test_a_secret_in_a_file_is_not_uploaded(exported, tmp_path, monkeypatch):
    folder = shutil.copytree(exported["tied-1"], tmp_path / "model")
    assert push.planned(folder, REPOSITORY, public=False).names[0] == "README.md"
    monkeypatch.setenv("WANDB_API_KEY", "planted-secret")
    with open(folder / "README.md", "a") as card:
        card.write("planted-secret")
    with pytest.raises(
        UserError, match="README.md: contains the value of a secret environment variable: remove it first"
    ):
        push.planned(folder, REPOSITORY, public=False)
    (folder / "config.json").unlink()
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(UserError, match="config.json is missing: export the checkpoint again with --replace"):
        push.planned(folder, REPOSITORY, public=False)
