"""What this recipe uses of verl, and what of it another version changes.

    python tests/helpers/verl_surface.py [FOLDER]   what differs from verl_surface.json; exit code 1 if anything does
    python tests/helpers/verl_surface.py --write    record the installed version

FOLDER is a verl package that need not be installed, such as an unpacked wheel's `verl/`. Nothing is imported: both are
read as source code, so this takes seconds and needs neither Ray, torch nor a GPU.

Recorded are the names that `recipe/` imports, replaces or looks up in verl; for every subclass, the methods and
attributes of verl's classes that it overrides or reads from `self`; and `BY_HAND`, attributes of verl's objects whose
class no import names. Each has its signature and a digest of its source code; that of a class covers its whole body.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "setup.py").is_file())
RECORD = Path(__file__).with_suffix(".json")
RECIPE = ("recipe",)
"""Folders whose use of verl is recorded."""
BY_HAND = {
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer.poll_interval": "PAECTrainer._build_replay_buffer sets it",
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer.sample": "PAECTrainer._build_replay_buffer wraps it",
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer.failure_keys": "PAECTrainer._check_rollout reads it",
    "verl.utils.tracking.Tracking.logger": "PAECTrainer adds its metrics file",
    "verl.utils.tracking.ValidationGenerationsLogger.log_generations_to_mlflow": "tracking.complete replaces it",
}
"""Name -> where the recipe uses it."""
NOT_NAMES = {"verl.plugins"}
"""Strings that look like a module of verl: a group of entry points."""
RAY_ACTOR = ("__ray_metadata__", "modified_class")
"""`X.__ray_metadata__.modified_class` is the class X before Ray's decorator."""


@dataclass(frozen=True)
class Entry:
    """What is recorded of a name."""

    kind: str
    """class, function, value, attribute (set in a method), module, or import (verl has it from another package)."""

    defined: str
    """Module in which it is defined."""

    signature: str
    """Of a function its arguments; of a class its bases and the arguments of its own `__init__`; else empty."""

    source: str
    """First 16 digits of the SHA-256 of its source code; empty for a module and an import."""


class Unresolved(LookupError):
    """A name that is not there."""


@dataclass(frozen=True)
class Definition:
    """Where a name leads."""

    module: Module
    node: ast.AST | None
    """None: the module itself."""

    kind: str
    origin: str = ""
    """Of an import from another package: its name there."""


class Module:
    """One file of a package, as source code."""

    def __init__(self, name: str, path: Path):
        self.name, self.path = name, path
        self.text = path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    def absolute(self, node: ast.ImportFrom) -> str:
        """The module that `from ... import` names."""
        if not node.level:
            return node.module or ""
        parts = self.package.split(".")
        above = parts[: len(parts) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])

    @cached_property
    def names(self) -> dict[str, ast.AST]:
        """Name -> the statement that makes it, the first one: what follows in `except ImportError` is a substitute."""
        found: dict[str, ast.AST] = {}
        for node in _statements(self.tree.body):
            for name in _made_by(node):
                found.setdefault(name, node)
        return found

    @cached_property
    def stars(self) -> list[str]:
        """The modules of `from ... import *`."""
        imports = [node for node in _statements(self.tree.body) if isinstance(node, ast.ImportFrom)]
        return [self.absolute(node) for node in imports if any(alias.name == "*" for alias in node.names)]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module or class, inside `if`, `try` and `with` too, but in no function."""
    for node in body:
        yield node
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "handlers", "orelse", "finalbody"):
                for inner in getattr(node, part, []):
                    yield from _statements(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])


def _made_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def dotted(node: ast.AST) -> str | None:
    """`a.b.c` of an expression that is that, else None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)) is not None:
        return f"{left}.{node.attr}"
    return None


class Sources:
    """Packages by name, read as source code."""

    def __init__(self, folders: dict[str, Path]):
        self._folders = folders
        self.module = cache(self._module)

    def _module(self, name: str) -> Module | None:
        top, *rest = name.split(".")
        if top not in self._folders:
            return None
        place = self._folders[top].joinpath(*rest)
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                return Module(name, path)
        return None

    def find(self, name: str) -> Definition:
        """What `package.module.Class.attribute` is.

        Raises:
            Unresolved: there is no such name.
        """
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            if (module := self.module(".".join(parts[:count]))) is not None:
                found = Definition(module, None, "module")
                for part in parts[count:]:
                    found = self._inside(found, part)
                return found
        raise Unresolved(name)

    def _inside(self, found: Definition, name: str) -> Definition:
        if found.kind == "import":
            return found  # of another package: nothing to look at
        if found.node is None:
            return self.in_module(found.module, name)
        if isinstance(found.node, ast.ClassDef):
            return self.in_class(found, name)
        raise Unresolved(name)

    def in_module(self, module: Module, name: str) -> Definition:
        """What a name means inside a module."""
        node = module.names.get(name)
        if isinstance(node, ast.Import | ast.ImportFrom):
            (alias,) = (a for a in node.names if (a.asname or a.name.split(".")[0]) == name)
            if isinstance(node, ast.ImportFrom):
                target = f"{module.absolute(node)}.{alias.name}"
            else:
                target = alias.name if alias.asname else name
            return self.find(target) if target.split(".")[0] in self._folders else self._outside(module, node, target)
        if node is None:
            for star in module.stars:
                if star.split(".")[0] in self._folders:
                    try:
                        return self.find(f"{star}.{name}")
                    except Unresolved:
                        continue
            inner = self.module(f"{module.name}.{name}")
            if inner is None:
                raise Unresolved(f"{module.name}.{name}")
            return Definition(inner, None, "module")
        if isinstance(node, ast.Assign) and (value := dotted(node.value)) is not None:
            head, *rest = value.split(".")
            if tuple(rest) == RAY_ACTOR:
                return self.in_module(module, head)
        return Definition(module, node, _kind(node))

    @staticmethod
    def _outside(module: Module, node: ast.AST, target: str) -> Definition:
        return Definition(module, node, "import", target)

    def bases(self, found: Definition) -> list[Definition]:
        """The base classes that are in these packages."""
        assert isinstance(found.node, ast.ClassDef)
        definitions = []
        for base in found.node.bases:
            name = dotted(base.value if isinstance(base, ast.Subscript) else base)
            try:
                definition = Definition(found.module, None, "module")
                for part in (name or "").split("."):
                    definition = self._inside(definition, part)
            except Unresolved:
                continue  # a builtin
            if isinstance(definition.node, ast.ClassDef):
                definitions.append(definition)
        return definitions

    def ancestors(self, found: Definition) -> list[Definition]:
        """A class and all classes above it."""
        order = {(found.module.name, found.node.name): found}
        for base in self.bases(found):
            for above in self.ancestors(base):
                order.setdefault((above.module.name, above.node.name), above)
        return list(order.values())

    def in_class(self, found: Definition, name: str) -> Definition:
        """A method, a class attribute, or one that a method sets; of the class or one above."""
        for kind in (own_names, set_names):
            for above in self.ancestors(found):
                if (node := kind(above.node).get(name)) is not None:
                    return Definition(above.module, node, _kind(node) if kind is own_names else "attribute")
        raise Unresolved(f"{found.module.name}.{found.node.name}.{name}")

    def entry(self, name: str) -> Entry:
        """What is to be recorded of a name."""
        found = self.find(name)
        node, module = found.node, found.module
        if found.kind == "import":
            return Entry("import", found.origin, "", "")
        if node is None:
            return Entry("module", module.name, "", "")
        return Entry(found.kind, module.name, _signature(node), _digest(module.text, node))


@cache
def own_names(node: ast.ClassDef) -> dict[str, ast.AST]:
    """Name -> statement of the class body."""
    return {name: statement for statement in _statements(node.body) for name in _made_by(statement)}


@cache
def set_names(node: ast.ClassDef) -> dict[str, ast.AST]:
    """Name -> first statement of a method that sets `self.name`."""
    found: dict[str, ast.AST] = {}
    for statement in ast.walk(node):
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in (part for whole in targets for part in ast.walk(whole)):
                if isinstance(target, ast.Attribute) and dotted(target.value) == "self":
                    found.setdefault(target.attr, statement)
    return found


def _kind(node: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    return "function" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else "value"


def _digest(text: str, node: ast.AST) -> str:
    """Of the statement's lines, decorators included, whatever their indentation."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    lines = textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno])).splitlines()
    return hashlib.sha256("\n".join(map(str.rstrip, lines)).encode()).hexdigest()[:16]


def _signature(node: ast.AST) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return f"({ast.unparse(node.args)})"
    if isinstance(node, ast.ClassDef):
        init = own_names(node).get("__init__")
        return f"({', '.join(map(ast.unparse, node.bases))})" + (_signature(init) if init is not None else "")
    return ""


# ---- what the recipe uses --------------------------------------------------------------------------------------------


def used(sources: Sources, root: Path = ROOT, by_hand: Mapping[str, str] = BY_HAND) -> dict[str, str]:
    """Name of verl -> the first file below `root` that uses it.

    What a subclass reads from `self` and no class above it has counts as a name of the nearest one: `differences` calls
    it gone.
    """
    found: dict[str, str] = {}
    for path in sorted(path for folder in RECIPE for path in (root / folder).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        module = sources.module(name)
        assert module is not None, path
        for one in [*_looked_up(module), *_in_subclasses(sources, module)]:
            found.setdefault(one, path.relative_to(root).as_posix())
    for name, where in by_hand.items():
        found.setdefault(name, where)
    return dict(sorted(found.items()))


def _imported(tree: ast.AST, module: Module) -> dict[str, str]:
    """Local name -> name of verl, for every import of a file and every name given to such a one."""
    local: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (source := module.absolute(node)).split(".")[0] == "verl":
            local |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "verl":
                    local[alias.asname or "verl"] = alias.name if alias.asname else "verl"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            head, _, rest = (dotted(node.value) or "").partition(".")
            if head in local and tuple(rest.split(".")) == RAY_ACTOR:
                local[node.targets[0].id] = local[head]
    return local


def _looked_up(module: Module) -> Iterator[str]:
    """Names that a file imports, attributes of those, and modules named in strings with what is replaced in them."""
    local = _imported(module.tree, module)
    yield from local.values()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and (chain := dotted(node)) is not None:
            head, *rest = chain.split(".")
            if head in local and len(rest) == 1 and rest[0] != RAY_ACTOR[0]:
                yield f"{local[head]}.{rest[0]}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value
            if name.startswith("verl.") and name.replace(".", "_").isidentifier() and name not in NOT_NAMES:
                yield name
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(inner := node.args[0], ast.Call):
            named = [a.value for a in (*inner.args[:1], node.args[1]) if isinstance(a, ast.Constant)]
            if dotted(inner.func) == "importlib.import_module" and len(named) == 2 and named[0].startswith("verl."):
                yield ".".join(named)


def _in_subclasses(sources: Sources, module: Module) -> Iterator[str]:
    """Of the file's subclasses of verl's classes: what they override and what they read from `self` or `super()`."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        above = sources.ancestors(Definition(module, node, "class"))
        verl = [found for found in above if found.module.name.split(".")[0] == "verl"]
        if not verl:
            continue
        ours = [found.node for found in above if found not in verl]
        own = {name for found in ours for name in own_names(found)}
        for found in verl:
            both = own & (own_names(found.node).keys() | ({"__init__"} & set_names(found.node).keys()))
            yield from (f"{found.module.name}.{found.node.name}.{name}" for name in sorted(both))
        known = own | {name for found in ours for name in set_names(found)}
        for name in sorted(_read(node) - known):
            definers = [found for found in verl if name in own_names(found.node) or name in set_names(found.node)]
            nearest = (definers or verl)[0]
            yield f"{nearest.module.name}.{nearest.node.name}.{name}"
        for name in sorted(known & _set(node)):  # what verl sets and the subclass sets again
            yield from (f"{f.module.name}.{f.node.name}.{name}" for f in verl if name in set_names(f.node))


def _read(node: ast.ClassDef) -> set[str]:
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Load):
            of_super = isinstance(part.value, ast.Call) and dotted(part.value.func) == "super"
            if dotted(part.value) == "self" or of_super:
                found.add(part.attr)
    return found - {"__class__", "__init__"}


def _set(node: ast.ClassDef) -> set[str]:
    return set(set_names(node))


# ---- the record ------------------------------------------------------------------------------------------------------


def installed() -> Path:
    """The folder of the installed verl, which is not imported."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: verl is not installed here: use the Python of launch/setup_env.sh, or name a folder")
    return Path(spec.submodule_search_locations[0])


def version(folder: Path) -> str:
    """The version of a verl package."""
    return (folder / "version" / "version").read_text(encoding="utf-8").strip()


def sources_of(folder: Path, root: Path = ROOT) -> Sources:
    """verl in `folder` together with the recipe of `root`."""
    return Sources({"verl": folder, **{name: root / name for name in RECIPE}})


def differences(record: dict[str, dict[str, str]], sources: Sources, names: dict[str, str]) -> list[str]:
    """One line for every name that differs, the record's and the used ones."""
    found = []
    for name in sorted({*record, *names}):
        where = f" ({names[name]})" if name in names else ""
        try:
            entry = asdict(sources.entry(name))
        except Unresolved:
            found.append(f"gone       {name}{where}")
            continue
        if name not in record:
            found.append(f"added      {name}{where}: not in the record")
        elif name not in names:
            found.append(f"not used   {name}: the recipe no longer uses it")
        elif changed := [key for key in entry if entry[key] != record[name][key]]:
            details = [f"{key} {record[name][key]} -> {entry[key]}" for key in changed if key != "source"]
            found.append(f"{_verb(changed)} {name}{where}" + (": " + "; ".join(details) if details else ""))
    return found


def _verb(changed: list[str]) -> str:
    return "signature " if "signature" in changed else "moved     " if changed != ["source"] else "source    "


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="verl package (default: the installed one)")
    parser.add_argument("--write", action="store_true", help=f"record it in tests/helpers/{RECORD.name}")
    options = parser.parse_args()
    folder = options.folder or installed()
    if not (folder / "version" / "version").is_file():
        parser.error(f"{folder} is not a verl package: name the folder that holds verl's __init__.py")
    sources = sources_of(folder)
    names = used(sources)
    if options.write:
        try:
            entries = {name: asdict(sources.entry(name)) for name in names}
        except Unresolved as missing:
            parser.error(f"verl {version(folder)} has no {missing}, which the recipe uses: change the recipe first")
        RECORD.write_text(json.dumps({"verl": version(folder), "names": entries}, indent=1) + "\n", encoding="utf-8")
        print(f"{len(entries)} names of verl {version(folder)} -> {RECORD}")
        return 0
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    found = differences(record["names"], sources, names)
    print(*found, sep="\n", end="\n" if found else "")
    print(f"verl {version(folder)} against the recorded {record['verl']}: {len(names)} names, {len(found)} differ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
