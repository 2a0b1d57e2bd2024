"""`python -m paec_loss.methods [FILE]`: the catalogue of methods in Markdown, from their classes.

Prints it, or writes it between the two marks of FILE (docs/methods.md).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from paec_loss.fields import rules_of
from paec_loss.method import Method
from paec_loss.methods import METHODS

BEGIN, END = "<!-- catalogue: python -m paec_loss.methods docs/methods.md -->", "<!-- end of the catalogue -->"
HOOKS = {
    "sampling": "S",
    "rewards": "R",
    "advantages": "D",
    "token_advantages": "L",
    "selection": "L",
    "loss_term": "L",
    "policy_loss": "P",
    "clip": "C",
}
"""Hook -> letter of the catalogue's column `acts on`."""


def letters(method: type[Method]) -> str:
    """Where a method acts: O data order, S sampling, R reward, D advantages, C clip range, P surrogate, L loss."""
    found = ["O"] if "curriculum" in method.needs else []
    found += [letter for hook, letter in HOOKS.items() if getattr(method, hook) is not getattr(Method, hook)]
    memory = " + memory" if method.tracker is not Method.tracker else ""
    return (" ".join(dict.fromkeys(found)) or "-") + memory


def one_line(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def section(name: str, method: type[Method]) -> list[str]:
    """The catalogue's entry of one method."""
    lines = [f"### {name}", "", inspect.cleandoc(method.__doc__ or ""), ""]
    lines += [f"* Published: {method.paper}."]
    lines += [f"* On-policy (one update per step): {method.on_policy}."]
    lines += [f"* Spans the batch: {method.spans}."]
    lines += [f"* Released code: {method.released}."] if method.released else []
    rules = rules_of(method)
    lines += [f"* `{f.name}` = {shown(f.default, rules[f.name])}: {rules[f.name]['meaning']}." for f in fields(method)]
    return [*lines, ""]


def shown(default: object, rules: Mapping[str, Any]) -> str:
    """A default as an override would write it, and the other options if the field is a choice."""
    others = [option for option in rules.get("options", ()) if option != default]
    text = ", ".join(map(str, default)) if isinstance(default, tuple) else "null" if default is None else str(default)
    return f"{text} (or {', '.join(others)})" if others else text


def catalogue() -> str:
    """The table of all methods, then a section on each."""
    rows = ["| method | acts on | what | published |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        cells = (f"[{name}](#{name})", letters(method), one_line(method.__doc__), method.paper)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    sections = [line for name, method in METHODS.items() for line in section(name, method)]
    return "\n".join([*rows, "", *sections]).rstrip() + "\n"


def written(text: str) -> str:
    """`text` with the catalogue between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{catalogue()}\n{END}{after}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        file = Path(sys.argv[1])
        file.write_text(written(file.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(catalogue(), end="")
