"""The documents do not drift from the code: fields, defaults, presets, files; and the code's rules about itself."""

from __future__ import annotations

import ast
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from paec_loss import PAECConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows of the first table after a heading, without its head."""
    lines = README[README.index(heading) :].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    end = next((i for i, line in enumerate(lines[1:], 1) if line.startswith("#")), len(lines))
    return rows[2 : sum(line.startswith("|") for line in lines[:end])]


def test_fields_and_defaults():
    assert {row[0]: row[1] for row in table("### Fields")} == {k: str(v) for k, v in asdict(PAECConfig()).items()}


def test_presets():
    named = {name.strip() for row in table("### Presets") for name in row[0].split(",")}
    assert named == {path.stem for path in (ROOT / "configs" / "method").glob("*.yaml")}


@pytest.mark.parametrize("document", ["README.md", "docs/design.md", "docs/kernel.md"])
def test_named_files_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    made = (
        "actor/",
        "outputs/",
        ".venv/",
        "rollouts/",
        "validation/",
        "checkpoints/",
        "huggingface/",
        "global_step_N/",
    )
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text):
        assert name.startswith(made) or (ROOT / name).exists(), f"{document} names {name}"
    for script in re.findall(r"bash (\S+\.sh)", text):
        assert (ROOT / script).is_file(), script


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in names}


def test_the_library_knows_no_trainer():
    for path in (ROOT / "paec_loss").rglob("*.py"):
        assert not imports(path) & {"verl", "ray", "hydra", "recipe", "omegaconf"}, path


def test_only_the_recipe_knows_verl():
    for folder in ("paec_loss", "data_prep"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not imports(path) & {"verl", "recipe"}, path


@pytest.mark.parametrize("folder", ["paec_loss", "recipe", "data_prep", "benchmarks"])
def test_public_symbols_are_documented(folder):
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert path.name == "__init__.py" or ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node) or node.name in ("main", "hydra_main"), f"{path}: {node.name}"
