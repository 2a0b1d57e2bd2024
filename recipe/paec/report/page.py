"""The report as one HTML file that needs nothing else: data, style, scripts and the chart library are inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recipe.paec.common import secrets
from recipe.paec.report import benchmarks, plane
from recipe.paec.report.benchmarks import Scored
from recipe.paec.report.charts import sections
from recipe.paec.report.facts import facts_of, provenance
from recipe.paec.report.responses import Responses
from recipe.paec.report.runs import Run
from recipe.paec.report.series import Column, Group
from recipe.paec.report.settings import settings_of

TEMPLATES = Path(__file__).parent / "templates"
UPLOT = Path(__file__).parent / "uplot"
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


@dataclass(frozen=True)
class Content:
    """Everything that a report shows."""

    groups: Sequence[Group]
    """What is drawn, one colour each."""
    responses: Mapping[Path, Responses] = field(default_factory=dict)
    """Run's folder -> its rollouts."""
    scored: Sequence[Scored] = ()
    """Evaluations."""
    remarks: Mapping[Path, Sequence[str]] = field(default_factory=dict)
    """Run's folder -> what else could not be read."""
    findings: Mapping[plane.Place, Sequence[str]] = field(default_factory=dict)
    """Validation set -> what is said beside its plane of accuracy and pass@n."""

    @property
    def runs(self) -> list[Run]:
        """All runs, group by group."""
        return [run for group in self.groups for run in group.runs]

    @property
    def title(self) -> str:
        """The names of the groups, or of the evaluations where there are only those."""
        names = [group.name for group in self.groups] or list(dict.fromkeys(one.name for one in self.scored))
        text = " \N{MIDDLE DOT} ".join(names)
        return text if len(text) <= 120 else f"{len(names)} runs"

    def sections(self) -> list[dict[str, Any]]:
        """The sections with charts: the planes of several runs first, the benchmarks after the validation."""
        found = sections(self.groups) if self.groups else []
        planes = plane.section(self.groups, self.findings)
        found[0 if len(self.groups) > 1 else 1 : 0] = planes
        if self.scored:
            colours = {run.name: group.place for group in self.groups for run in group.runs}
            colours |= {group.name: group.place for group in self.groups}
            at = next((i + 1 for i, one in enumerate(found) if one["id"] == "validation"), 0)
            found.insert(at, benchmarks.section(self.scored, colours))
        return found


def round_values(chart: dict[str, Any]) -> None:
    """Round the values that a chart has of its own."""
    for line in chart["series"]:
        for part in ("xs", "ys", "lows", "highs"):
            if part in line:
                line[part] = [rounded(value) for value in line[part]]


def payload(content: Content, charts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The data of a page: every recorded metric of every group, and the charts that refer to them."""
    found = []
    for group in content.groups:
        axes: dict[tuple[int, ...], int] = {}
        packed = {key: _packed(column, axes) for key, column in group.columns.items()}
        found.append({"name": group.name, "axes": list(axes), "columns": packed})
        found[-1] |= {"seeds": len(group.runs), "place": group.place}
    for chart in charts:
        round_values(chart)
    examples = [
        {"run": run.name, "step": step, "responses": list(shown)}
        for run in content.runs
        if run.folder in content.responses
        for step, shown in content.responses[run.folder].examples.items()
    ]
    return {"title": content.title, "groups": found, "charts": list(charts), "examples": examples}


def embedded(data: Any) -> str:
    """JSON for a script element: no text in it can end the element or start a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def source(text: str) -> str:
    """The source expression that allows exactly this inline script or style in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class Live:
    """For a page that is served while the run trains: where it asks for new rows, and how often."""

    state: str
    """What the page already has, which it sends with its request (`recipe.paec.watch`)."""
    seconds: float
    """From one request to the next."""


def policy_of(scripts: Sequence[str], style: str, live: bool = False) -> str:
    """The content security policy of a page: its own scripts and style, and a live one may ask its own server."""
    parts = [
        "default-src 'none'",
        f"script-src {' '.join(map(source, scripts))}",
        f"style-src {source(style)}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*parts, "connect-src 'self'"] if live else parts)


def templates(*folders: Path) -> Environment:
    """The templates of pages in these folders, and the shared ones of this package."""
    return Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(content: Content, made: str, live: Live | None = None) -> str:
    """The page.

    Args:
        content: what it shows.
        made: when and with what it was made.
        live: for a page of one run that is served while it trains; None for a file.
    """
    runs = content.runs
    found = content.sections()
    charts = [chart for section in found for chart in section["charts"]]
    style = "\n".join([text_of(UPLOT / "uPlot.min.css"), text_of(TEMPLATES / "page.css")])
    library = text_of(UPLOT / "uPlot.iife.min.js")
    names = ("text.js", "data.js", "chart.js", "plane.js", "page.js", *(("live.js",) if live else ()))
    script = "\n".join(text_of(TEMPLATES / name) for name in names)
    data = payload(content, charts) | ({"live": {"state": live.state, "seconds": live.seconds}} if live else {})
    facts = [facts_of(run) for run in runs]
    scored = [(one, benchmarks.facts_of(one)) for one in content.scored]
    settings = [settings_of(run.config) for run in runs]
    text = (
        templates()
        .get_template("page.html")
        .render(
            title=content.title,
            policy=policy_of([library, script], style, live is not None),
            live=live is not None,
            style=style,
            library=library,
            script=script,
            licence=text_of(UPLOT / "LICENSE"),
            data=embedded(data),
            sections=found,
            groups=content.groups,
            scored=scored,
            scores=list(dict.fromkeys(fact.label for _, own in scored for fact in own)),
            runs=runs,
            facts=facts,
            labels=list(
                dict.fromkeys(fact.label for of_run in sorted(facts, key=len, reverse=True) for fact in of_run)
            ),
            provenance=[(run.name, provenance(run)) for run in runs]
            + [(f"evaluation of {one.name}", benchmarks.provenance(one)) for one in content.scored],
            settings=settings,
            remarks=[(run.name, sentences) for run in runs if (sentences := _remarks(run, content))],
            examples=any(of_run.examples for of_run in content.responses.values()),
            made=made,
        )
    )
    return secrets.hide(text).replace(secrets.HIDDEN, "[hidden]")


def _remarks(run: Run, content: Content) -> list[str]:
    """What could not be read of a run."""
    responses = content.responses.get(run.folder)
    return [*run.remarks, *(responses.remarks if responses else ()), *content.remarks.get(run.folder, ())]


def text_of(path: Path) -> str:
    """A file that becomes a part of a page."""
    return path.read_text(encoding="utf-8").strip()
