"""The wheel of this recipe, installed into an environment of its own and used from an empty folder."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from installed_copy import clean_environment, environment, tracked_files, wheel

from recipe.paec.__main__ import usage
from recipe.paec.common.repository import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return wheel(tracked_files(folder / "source"), folder / "dist")


@pytest.fixture(scope="module")
def programs(built, tmp_path_factory) -> Path:
    """The `bin` of the environment, which is inside a repository that is not this one."""
    project = tmp_path_factory.mktemp("project")
    (project / "file").touch()
    git = ["git", "-C", str(project), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "--quiet"], ["add", "file"], ["commit", "--quiet", "--message=a"]):
        subprocess.run([*git, *arguments], check=True)
    return environment(project / ".venv", built)


@pytest.fixture
def run(programs, tmp_path):
    """run("plan", ...) -> `paec plan ...` in an empty folder: exit code and output."""

    def call(*arguments: str, code: int = 0) -> str:
        command = [str(programs / "paec"), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False, timeout=1700
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def test_it_has_every_file_that_is_read(built):
    names = set(zipfile.ZipFile(built).namelist())
    read = [
        *(REPOSITORY / "configs").rglob("*.yaml"),
        *(path for path in (REPOSITORY / "data_prep" / "prepared").rglob("*") if path.is_file()),
        *(REPOSITORY / "recipe" / "paec" / "report" / "templates").iterdir(),
        *(REPOSITORY / "recipe" / "paec" / "report" / "uplot").iterdir(),
        *(REPOSITORY / "recipe" / "paec" / "tokens" / "templates").iterdir(),
    ]
    assert {path.relative_to(REPOSITORY).as_posix() for path in read} <= names and len(read) > 50
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"configs", "data_prep", "paec_loss", "recipe"}


def test_commands(run):
    assert run("--help").strip() == usage()
    assert "aime24 " in run("data", "--help")
    assert run("plan", "experiment=qwen7b").endswith("it fits\n")


def test_a_training_is_checked_and_started_from_the_installed_package(run, programs):
    shown = run("train", "experiment=tiny_cpu", "--dry-run")
    assert shown.endswith("all checks passed\n") and "training at step 0 to step 150" in shown


def test_the_laboratory_trains_with_the_prepared_task(run, tmp_path):
    run("lab", "steps=1", "prompts=2", "mini_batch=2", "responses=2", "test_every=-1")
    (file,) = tmp_path.glob("outputs/lab/*/metrics.jsonl")
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1]


def test_the_prepared_data_is_copied(programs, tmp_path):
    command = [str(programs / "python"), "-m", "data_prep.tiny", "--output", "data/tiny"]
    subprocess.run(command, cwd=tmp_path, env=clean_environment(), check=True, capture_output=True)
    copied, original = tmp_path / "data" / "tiny", REPOSITORY / "data_prep" / "prepared" / "countdown"
    for name in ("data/train.parquet", "model/config.json"):
        assert (copied / name).read_bytes() == (original / name).read_bytes()


def test_slurm_needs_a_checkout(run):
    shown = run("grid", "METHODS=none", "SEEDS=1", "SLURM=--time=60", "EXPERIMENT=tiny_cpu", code=2)
    assert "SLURM: the jobs run launch/slurm/sweep.sbatch, which an installed package does not have: " in shown


def test_the_commit_is_not_that_of_a_repository_around_the_environment(programs, tmp_path):
    source = "from recipe.paec.common import repository as r; print(r.IS_CHECKOUT, r.git_commit(), r.OF_CHECKOUT)"
    command = [str(programs / "python"), "-c", source]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False None  of a checkout of the repository"
