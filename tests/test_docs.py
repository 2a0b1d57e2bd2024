"""The documents do not drift from the code: fields, defaults, presets, files; and the code's rules about itself."""

from __future__ import annotations

import ast
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from paec_loss import PAECConfig
from paec_loss.methods import METHODS
from paec_loss.methods.__main__ import written
from recipe.paec.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAEC_PAGE = (ROOT / "docs" / "paec.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows of the first table after a heading of docs/paec.md, without its head."""
    lines = PAEC_PAGE[PAEC_PAGE.index(heading) :].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    end = next((i for i, line in enumerate(lines[1:], 1) if line.startswith("#")), len(lines))
    return rows[2 : sum(line.startswith("|") for line in lines[:end])]


def test_fields_and_defaults():
    assert {row[0]: row[1] for row in table("## Fields")} == {k: str(v) for k, v in asdict(PAECConfig()).items()}


def test_presets():
    named = {name.strip() for row in table("## Presets") for name in row[0].split(",")}
    assert named == {"paec", *(path.stem for path in (ROOT / "configs" / "method").glob("paec_*.yaml"))}


def test_the_catalogue_is_made_of_the_classes():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert written(text) == text, "run python -m paec_loss.methods docs/methods.md"
    for name, method in METHODS.items():
        assert f"\n### {name}\n" in text and method.paper in text


DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "recipe/paec/README.md"),
    *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    made = (
        "actor/",
        "outputs/",
        ".venv/",
        "rollouts/",
        "tokens/validation/",
        "validation/",
        "checkpoints/",
        "huggingface/",
        "tensorboard/",
        "perf/",
        "wandb/",
        "trackio/",
        "mlflow/",
        "val/",
        "global_step_N/",
        "data/",
        "RUN/",
        "response_length/",
        "reward/",
        "rollout_corr/",
        "step_",
        "training/",
    )
    for name in re.findall(r"`((?:[\w.-]*[A-Za-z][\w.-]*/)+[\w.-]*)`", text):
        there = any((root / name).exists() for root in (ROOT, ROOT / "recipe" / "paec"))
        assert there or (name.startswith(made) and not name.endswith(".py")), f"{document} names {name}"
    for script in re.findall(r"bash (\S+\.sh)", text):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_pages(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(((?:[\w.-]+/)*[\w.-]+\.md)(?:#[\w-]+)?\)", text):
        if "/" in link or document != "README.md":  # those beside the README are GitHub's own: CONTRIBUTING.md, ...
            assert (ROOT / document).parent.joinpath(link).is_file(), f"{document} links to {link}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"]({path.name})" in index, path.name


def test_the_readme_names_every_command():
    rows = re.findall(r"^\| `paec (\w+) ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
    assert rows == list(COMMANDS)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("folder", ["paec_loss", "recipe", "data_prep", "benchmarks"])
def test_public_symbols_are_documented(folder):
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert path.name == "__init__.py" or ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node) or node.name in ("main", "hydra_main"), f"{path}: {node.name}"


def test_the_sample_makes_good_tokens_more_likely():
    """The code of docs/paec.md, run unchanged, and a step of gradient descent."""
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAEC_PAGE, flags=re.S) if "advantage" in block)
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 9, requires_grad=True), torch.randint(9, (6,))
    names = {"logits": logits, "labels": labels, "advantage": torch.tensor([1.0, -1.0] * 3)}
    exec(code, names | {"hidden": torch.randn(6, 4), "lm_head": torch.nn.Linear(4, 9)})
    before, after = (values.log_softmax(-1)[range(6), labels] for values in (logits, logits - 0.1 * logits.grad))
    assert ((after - before) * names["advantage"] > 0).all()
