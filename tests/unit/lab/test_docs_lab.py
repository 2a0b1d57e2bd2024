"""docs/lab.md: its examples train, and its tables have what the code has."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields as fields_of
from importlib import import_module
from pathlib import Path

import pytest
from batches import random_rollouts

from paec_loss import Method, Rollouts, Tokens, TokenStatistics, Update, fields
from paec_loss.hooks import TRACKER
from recipe.lab.__main__ import main
from recipe.paec.common.records import METRICS_FILE, read_metrics

PAGE = (Path(__file__).parents[3] / "docs" / "lab.md").read_text(encoding="utf-8")
COMMON = ("prompts=2", "mini_batch=2", "responses=4", "steps=1", "test_every=-1")


def first_column(head: str, name: str = "") -> list[list[str]]:
    """The names in the first column of the table with this head, and this name in it; a list for every row."""
    (table,) = [part for part in PAGE.split("\n\n") if part.startswith(head) and f"| {name}" in part][:1]
    return [re.findall(r"`([\w.]+)", row.split("|")[1]) for row in table.splitlines()[2:]]


def is_helper(name: str, value: object) -> bool:
    return inspect.isfunction(value) and not name.startswith("_")


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with the examples of the page in pkg_of_the_page."""
    examples = re.findall("```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "pkg_of_the_page.py").write_text("\n\n".join(examples))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "outputs" / "lab"


def test_the_examples_train(own):
    """The classes do what their docstrings say."""
    bonus = ("method.coefficient=linear:0.02:0:150", "method.gap=0.2")
    for method in (["Surprise", "method.alpha=0.2"], ["CloseCall", *bonus], ["Thermostat", "method.target=2"], None):
        chosen = ["method=none"] if method is None else [f"method=pkg_of_the_page.{method[0]}", *method[1:]]
        assert main([*chosen, *COMMON]) == 0
    runs = {folder.name.partition("-")[0]: read_metrics(folder / METRICS_FILE)[0] for folder in own.iterdir()}
    for name in ("Surprise", "CloseCall", "Thermostat"):
        assert runs[name]["critic/score/mean"] == runs["none"]["critic/score/mean"], "the first responses are the same"
        assert runs[name]["actor/grad_norm"] != runs["none"]["actor/grad_norm"]
    assert runs["CloseCall"]["actor/pkg_of_the_page.CloseCall/coefficient"] == 0.02
    assert 0 < runs["CloseCall"]["actor/pkg_of_the_page.CloseCall/close_share"] < 0.5
    assert runs["CloseCall"]["actor/pg_loss"] == runs["none"]["actor/pg_loss"] > runs["CloseCall"]["actor/loss"]
    kept, plain = runs["Thermostat"], runs["none"]
    mean = kept["actor/pkg_of_the_page.Thermostat/mean"]
    assert 0 < mean < 2 and mean == pytest.approx(plain["actor/entropy"], rel=1e-5)
    assert kept["actor/loss"] - plain["actor/loss"] == pytest.approx(-0.05 * (2 - mean) * mean, rel=1e-3)


def test_the_files_of_this_page_and_of_the_scorers_fit_in_one_folder(tmp_path, monkeypatch):
    """Laid out as both pages say, every class and function that their commands name is found."""
    scorers = (Path(__file__).parents[3] / "docs" / "scorers.md").read_text(encoding="utf-8")
    first = {page: re.findall("```python\n(.*?)```", page, flags=re.DOTALL) for page in (PAGE, scorers)}
    files = {"surprise.py": first[PAGE][0], "close.py": first[PAGE][1], "my_scorers/spelling.py": first[scorers][0]}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    classes = set(re.findall(r"method=(\w+)\.(\w+)", PAGE))
    functions = set(re.findall(r"\.spelling=([\w.]+):(score)\b", scorers))
    assert len(classes) == 2 and len(functions) == 1
    assert all(callable(getattr(import_module(module), name)) for module, name in classes | functions)


def test_the_reward_of_a_group(own):
    """Each prompt with a right response gives a tenth more, to the shortest of them."""
    from pkg_of_the_page import Brief

    rollouts = random_rollouts()
    more = Brief().rewards(rollouts) - rollouts.rewards
    shortest = {
        min(right, key=lambda row: rollouts.lengths[row].item())
        for rows in rollouts.groups()
        if (right := [row for row in rows.tolist() if rollouts.rewards[row] > 0])
    }
    assert {row for row, value in enumerate(more.tolist()) if value} == shortest and len(shortest) > 1
    assert all(value in (0, pytest.approx(0.1)) for value in more.tolist())


def test_the_table_of_the_hooks():
    rows = PAGE[PAGE.index("| hook |") :].split("\n\n")[0].splitlines()[2:]
    table = {cells[1].strip(" `"): re.findall(r"\w+", cells[2]) for cells in (row.split("|") for row in rows)}
    shared = ("at", "overrides")
    hooks = {name: f for name, f in vars(Method).items() if inspect.isfunction(f) and name[0] != "_"}
    assert table == {name: [*inspect.signature(f).parameters][1:] for name, f in hooks.items() if name not in shared}


def test_the_table_of_a_tracker():
    rows = [cell for row in first_column("| method of a tracker |") for cell in row]
    assert rows == list(TRACKER)


def test_the_tables_of_the_fields():
    names = [name for row in first_column("| field | shape |") for name in row]
    listed = {name.rpartition(".")[2] for name in names}
    for kind in (Tokens, TokenStatistics, Update):
        assert {field.name for field in fields_of(kind)} - {"statistics"} <= listed, kind
    for name in names:
        *_, kind, field = f"tokens.statistics.{name}".split(".")
        owner = {"tokens": Tokens, "statistics": TokenStatistics, "update": Update}[kind]
        assert hasattr(owner, field) or field in {one.name for one in fields_of(owner)}, name
    assert all(callable(getattr(Tokens, name)) for row in first_column("| helper of `tokens`") for name in row)
    read = {name.rpartition(".")[2] for row in first_column("| field | shape |", "`rollouts.rewards`") for name in row}
    assert read - {"lengths", "log_prob", "entropy"} == {field.name for field in fields_of(Rollouts)}
    helpers = {name for row in first_column("| helper of `rollouts`") for name in row}
    assert helpers == {name for kind in Rollouts.__mro__ for name, f in vars(kind).items() if is_helper(name, f)}
    own = [f for f in vars(fields).values() if inspect.isfunction(f) and f.__module__ == fields.__name__]
    makers = {f.__name__ for f in own if not f.__name__.startswith(("_", "check_", "rules_of"))}
    assert {name for row in first_column("| field maker") for name in row} == makers
