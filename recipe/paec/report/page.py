"""The report as one HTML file that needs nothing else: data, style, scripts and the chart library are inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recipe.paec.common import secrets
from recipe.paec.compare.figures import COLOURS
from recipe.paec.report.charts import sections
from recipe.paec.report.facts import facts_of, provenance
from recipe.paec.report.responses import Responses
from recipe.paec.report.series import Column, Group
from recipe.paec.report.settings import settings_of

HERE = Path(__file__).parent
UPLOT = HERE / "uplot"
"""uPlot 1.6.32 as published (MIT, LICENSE beside it): the charts on the page. docs/report.md says why it is here."""
DIGITS = 7
"""Significant digits of the numbers in the page."""


def rounded(value: float | None) -> float | None:
    """A number as the page holds it."""
    return value if value is None or isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def _packed(column: Column, axes: dict[tuple[int, ...], int]) -> list[Any]:
    """[number of its steps in `axes`, values, or with bounds also low and high]."""
    parts = [column.y] if column.low is None else [column.y, column.low, column.high]
    return [axes.setdefault(column.x, len(axes)), *([rounded(v) for v in part or ()] for part in parts)]


def payload(groups: Sequence[Group], responses: Sequence[tuple[str, Responses]], title: str) -> dict[str, Any]:
    """The data of a page: every recorded metric of every group, and the charts that refer to them."""
    found = []
    for group in groups:
        axes: dict[tuple[int, ...], int] = {}
        packed = {key: _packed(column, axes) for key, column in group.columns.items()}
        found.append({"name": group.name, "axes": list(axes), "columns": packed, "seeds": len(group.runs)})
    charts = [chart for section in sections(groups) for chart in section["charts"]]
    for chart in charts:
        for line in chart["series"]:
            for part in ("ys", "lows", "highs"):
                if part in line:
                    line[part] = [rounded(value) for value in line[part]]
    examples = [
        {"run": name, "step": step, "responses": list(shown)}
        for name, of_run in responses
        for step, shown in of_run.examples.items()
    ]
    return {"title": title, "colours": list(COLOURS), "groups": found, "charts": charts, "examples": examples}


def embedded(data: Any) -> str:
    """JSON for a script element: no text in it can end the element or start a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def source(text: str) -> str:
    """The source expression that allows exactly this inline script or style in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render(groups: Sequence[Group], responses: Sequence[tuple[str, Responses]], made: str) -> str:
    """The page.

    Args:
        groups: what is drawn, one colour each.
        responses: (run's name, its rollouts).
        made: when and with what the page was made.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = [run for group in groups for run in group.runs]
    style = "\n".join([_text(UPLOT / "uPlot.min.css"), _text(HERE / "templates" / "page.css")])
    library = _text(UPLOT / "uPlot.iife.min.js")
    script = "\n".join(_text(HERE / "templates" / name) for name in ("data.js", "chart.js", "page.js"))
    policy = [
        "default-src 'none'",
        f"script-src {source(library)} {source(script)}",
        f"style-src {source(style)}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    title = " \N{MIDDLE DOT} ".join(group.name for group in groups)
    facts = [facts_of(run) for run in runs]
    settings = [settings_of(run.config) for run in runs]
    text = environment.get_template("page.html").render(
        title=title if len(title) <= 120 else f"{len(groups)} runs",
        policy="; ".join(policy),
        style=style,
        library=library,
        script=script,
        licence=_text(UPLOT / "LICENSE"),
        data=embedded(payload(groups, responses, title)),
        sections=sections(groups),
        groups=groups,
        runs=runs,
        facts=facts,
        labels=list(dict.fromkeys(fact.label for of_run in facts for fact in of_run)),
        provenance=[provenance(run) for run in runs],
        settings=settings,
        remarks=[
            [*run.remarks, *(r for name, of in responses if name == run.name for r in of.remarks)] for run in runs
        ],
        examples=any(of_run.examples for _, of_run in responses),
        made=made,
    )
    return secrets.hide(text).replace(secrets.HIDDEN, "[hidden]")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()
