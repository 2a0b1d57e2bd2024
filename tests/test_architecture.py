"""Who may import whom: packages, and the folders of `recipe/paec`."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "common": "",
    "config": "",
    "scoring": "",
    "run": "config",
    "rollout": "",
    "actor": "config run",
    "plugins": "actor rollout",
    "driver": "config scoring run rollout actor plugins",
    "plan": "config",
    "export": "config scoring run compare",
    "compare": "scoring",
    "ray_node": "",
    "doctor": "config run plan ray_node",
    "report": "config scoring run compare",
    "analyse": "scoring run compare report tokens",
    "watch": "run report",
    "tokens": "config run export report",
    "grid": "config scoring run export compare",
    "train": "config run export report doctor",
    "evaluate": "config scoring run export compare doctor",
    "curriculum": "config scoring run doctor evaluate",
    "select": "scoring run",
}
"""Folder of `recipe/paec` -> those it may import from, `common` and itself left out."""
LAYERS = 6
"""Of ROOMS, the longest chain of imports."""
TESTED_ELSEWHERE = {
    "paec_loss/_torch.py": ("unit/paec_loss/test_token_statistics.py", "passes torch on"),
    "paec_loss/statistics.py": ("unit/paec_loss/test_token_statistics.py", "the statistics themselves"),
    "paec_loss/backends/reference.py": ("unit/paec_loss/test_token_statistics.py", "every backend in one file"),
    "paec_loss/backends/torch_backend.py": ("unit/paec_loss/test_token_statistics.py", "every backend in one file"),
    "paec_loss/backends/triton_backend.py": ("unit/paec_loss/test_triton_backend.py", "beside the other statistics"),
    "recipe/paec/common/fork_client.py": ("unit/paec/common/test_fork_server.py", "the other end"),
    "recipe/paec/actor/engine_config.py": ("unit/paec/actor/test_engine.py", "fields of verl's engine"),
    "recipe/paec/actor/loss.py": ("unit/paec/actor/test_engine.py", "only with verl's engine"),
    "recipe/paec/driver/process.py": ("integration/test_faults.py", "the training process"),
    "recipe/paec/driver/task_runner.py": ("integration/test_pipeline.py", "only with Ray"),
    "recipe/paec/plugins/cpu_platform.py": ("unit/paec/actor/test_engine.py", "only with verl's engine"),
    "recipe/paec/plugins/register.py": ("unit/paec/actor/test_engine.py", "only imports"),
    "recipe/paec/plugins/verl_plugin.py": ("integration/test_pipeline.py", "verl loads it"),
    "recipe/paec/plugins/vllm_plugin.py": ("integration/test_pipeline.py", "vLLM loads it"),
    "recipe/paec/report/catalogue.py": ("unit/paec/report/test_charts.py", "the charts of the page, a table"),
    "recipe/paec/rollout/server.py": ("integration/test_reproducible.py", "only with vLLM"),
    "recipe/paec/rollout/server_adapter.py": ("integration/test_faults.py", "only with vLLM"),
}
"""Module without a test file of its own name -> the file below tests/ where it is tested, and why there."""

NO_MODULES = {"run", "method", "rollout", "data", "extra_info", "options", "process", "torch"}
"""What docstrings name before a dot that is no module here: keys of the configuration, variables, other packages."""
SUFFIXES = {"csv", "json", "jsonl", "log", "parquet", "png", "py", "svg", "yaml"}


def imports(path: Path) -> set[str]:
    """Imported modules, as their package and as its first two parts: recipe and recipe.paec."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[:depth]) for name in names for depth in (1, 2)}


def test_the_library_knows_no_trainer():
    for path in (ROOT / "paec_loss").rglob("*.py"):
        assert not imports(path) & {"verl", "ray", "hydra", "recipe", "omegaconf"}, path
        if path.parent.name != "integrations":
            assert not imports(path) & {"trl", "transformers", "accelerate", "paec_loss.integrations"}, path


def test_only_the_recipe_knows_verl():
    for folder in ("paec_loss", "data_prep", "recipe/grading"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not imports(path) & {"verl", "recipe.paec"}, path


def test_the_laboratory_is_one_light_process():
    """It trains without the pipeline; of `recipe.paec` it has only folders that do not know verl."""
    below = {"common", "config", "scoring", "run"}
    for path in (ROOT / "recipe" / "lab").rglob("*.py"):
        assert not imports(path) & {"verl", "ray", "vllm", "transfer_queue"}, path
        assert {room(module) for module in imported(path)} <= below, path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
    for folder in ("paec_loss", "data_prep", "recipe/grading", "recipe/paec"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "recipe.lab" not in imports(path), path


def test_the_search_is_on_top():
    """It drives the laboratory and the grid; nothing but the table of commands knows it, and only one module Optuna."""
    for path in (ROOT / "recipe" / "search").rglob("*.py"):
        assert not imports(path) & {"verl", "ray", "vllm"}, path
        assert {room(module) for module in imported(path)} <= {"common", "config", "scoring", "run", "grid"}, path
        assert "optuna" not in imports(path) or path.name == "studies.py", path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 320, path
    for folder in ("paec_loss", "data_prep", "recipe/grading", "recipe/lab", "recipe/paec"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "recipe.search" not in imports(path), path


def test_graders_are_light():
    """Reward workers, evaluation and data preparation all import them."""
    for path in (ROOT / "recipe" / "grading").rglob("*.py"):
        assert not imports(path) & {"torch", "ray", "data_prep", "transformers", "pandas"}, path


def modules() -> dict[str, Path]:
    """Dotted name -> file, of `recipe.paec`."""
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in (ROOT / "recipe" / "paec").rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Modules of `recipe.paec` that a file imports, anywhere in it."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("recipe.paec.")}


def room(module: str) -> str:
    return module.split(".")[2]


def test_every_module_is_in_a_room():
    folder = ROOT / "recipe" / "paec"
    assert {path.name for path in folder.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert {path.parent.name for path in folder.glob("*/*.py")} == set(ROOMS)


def test_the_page_shows_the_folders():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| ?([`\w ]*) \|$", page[page.index("## The folders") :], flags=re.M)
    assert {name: below.replace("`", "") for name, below in rows} == ROOMS


@pytest.mark.parametrize("name", ROOMS)
def test_a_folder_imports_only_from_folders_below(name):
    allowed = {name, "common", *ROOMS[name].split()}
    for path in (ROOT / "recipe" / "paec" / name).rglob("*.py"):
        for module in imported(path):
            assert room(module) in allowed, f"{path} imports {module}"


def test_the_folders_have_few_layers_and_no_circle():
    def height(name: str, above: tuple[str, ...] = ()) -> int:
        assert name not in above, f"circle: {above}"
        below = [] if name == "common" else ["common", *ROOMS[name].split()]
        return 1 + max((height(other, (*above, name)) for other in below), default=0)

    assert max(height(name) for name in ROOMS) == LAYERS


def test_no_circle_of_modules():
    graph = {name: imported(path) & modules().keys() for name, path in modules().items()}
    while leaves := [name for name, below in graph.items() if not below & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"modules that import each other: {sorted(graph)}"


def test_every_module_has_a_test_file_of_its_name():
    """tests/unit mirrors the packages; an underscore before a module's name is left out."""
    missing = set()
    for package in ("recipe/paec", "recipe/grading", "recipe/lab", "recipe/search", "data_prep", "paec_loss"):
        for path in (ROOT / package).rglob("*.py"):
            module = path.relative_to(ROOT)
            folder = ROOT / "tests" / "unit" / module.parent.as_posix().removeprefix("recipe/")
            if not path.name.startswith("__") and not (folder / f"test_{path.stem.lstrip('_')}.py").is_file():
                missing.add(module.as_posix())
    assert missing == set(TESTED_ELSEWHERE), "add the test file, or change TESTED_ELSEWHERE"
    for module, (file, reason) in TESTED_ELSEWHERE.items():
        assert (ROOT / "tests" / file).is_file() and reason, f"{module}: tests/{file} must exist, with a reason"


def test_files_that_tests_name_exist():
    """A test that is skipped here, for want of Slurm or a GPU, would hide that a file was moved."""

    def parts(node: ast.expr) -> list[str]:
        """["tests", "run.sh"] of `REPOSITORY / "tests" / "run.sh"`; nothing of other expressions."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            above = [] if isinstance(node.left, ast.Name) else parts(node.left)
            if above or (isinstance(node.left, ast.Name) and node.left.id in ("REPOSITORY", "ROOT")):
                return [*above, node.right.value]
        return []

    named = {
        (path.relative_to(ROOT).as_posix(), "/".join(parts(node)))
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.BinOp) and parts(node) and Path(parts(node)[-1]).suffix
    }
    assert len(named) > 20
    assert [f"{test}: {path}" for test, path in sorted(named) if not (ROOT / path).exists()] == []


def test_names_that_docstrings_give_exist():
    """`module.name`: a module of that name here has such a name in it, and a function is in no module that is gone."""
    trees = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for folder in ("recipe", "paec_loss", "data_prep", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    inside: dict[str, set[str]] = {}
    functions = set()
    for module, tree in trees.items():
        nodes = list(ast.walk(tree))
        found = {node.id for node in nodes if isinstance(node, ast.Name)}
        found |= {
            alias.asname or alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        found |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        functions |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        inside.setdefault(module, set()).update(found)
        package, _, name = module.rpartition(".")
        inside.setdefault(package, set()).add(name)
    stale = []
    for module, tree in trees.items():
        texts = [node.value.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and is_text(node.value)]
        for dotted in re.findall(r"`([a-z]\w*(?:\.\w+)+)", "\n".join(texts)):
            head, _, name = dotted.rpartition(".")
            owners = [of_module for known, of_module in inside.items() if f".{known}".endswith(f".{head}")]
            gone = not any(name in of_module for of_module in owners) if owners else name in functions
            if gone and head.rpartition(".")[2].islower() and head not in NO_MODULES and name not in SUFFIXES:
                stale.append(f"{module}: {dotted}")
    assert stale == []


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_packages_are_empty():
    """`rollout.rewards` and the plugins are imported in light processes, which must not pay for their neighbours."""
    for path in (ROOT / "recipe").rglob("__init__.py"):
        assert not ast.parse(path.read_text(encoding="utf-8")).body[1:], path


def test_modules_are_short():
    for path in (ROOT / "recipe" / "paec").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 320, path


@pytest.mark.parametrize("name", sorted(set(ROOMS) - {"actor", "driver", "plugins", "rollout"}))
def test_only_verls_processes_know_verl(name):
    """The commands stay light; `run.safe_load` imports torch within its function."""
    for path in (ROOT / "recipe" / "paec" / name).rglob("*.py"):
        assert "verl" not in imports(path), path
