"""The main figures of a report for a paper: each as SVG, PNG and CSV, from the same data as the page."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from data_prep.files import atomic_write
from recipe.paec.compare.figures import COLOURS, DASHES, INK, name_ends, tidy
from recipe.paec.report.charts import STEP
from recipe.paec.report.page import Content
from recipe.paec.report.series import Group

MAIN = ("entropy", "hbar", "avg", "maj", "pass", "passk", "reward", "length", "diversity", "clip", "grad", "stages") + (
    "benchmark",
    "benchmarkk",
    "plane",
)
"""Charts that become figures, with the charts that they are split into for several runs."""
DPI = 200
FILLS, OPACITY = (*COLOURS, "#F0E442", "#999999"), (0.8, 0.4, 0.2)
"""Colours of areas; and their opacity, less where the colours come again."""


def write_figures(content: Content, folder: Path) -> list[Path]:
    """Write the main figures into `folder`, each file completely or not at all; returns the files."""
    files = []
    for chart in (chart for section in content.sections() for chart in section["charts"]):
        if re.sub(r"-\d+$", "", chart["id"]) not in MAIN:
            continue
        lines = [data_of(entry, content.groups, chart["scale"]) for entry in chart["series"]]
        with atomic_write(folder / f"{chart['id']}.csv") as partial:
            partial.write_text(as_csv(chart, lines), encoding="utf-8")
        with matplotlib.rc_context({"svg.hashsalt": chart["id"], "svg.fonttype": "none"}):
            figure = picture(chart, lines)
            for form, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": DPI})):
                with atomic_write(folder / f"{chart['id']}.{form}") as partial:
                    figure.savefig(partial, format=form, **options)
        files += [folder / f"{chart['id']}.{suffix}" for suffix in ("csv", "svg", "png")]
    return files


def data_of(entry: dict[str, Any], groups: Sequence[Group], scale: float) -> dict[str, Any]:
    """{label, colour, dashes, x, y, low, high} of a line of a chart, in the unit of the chart; NaN for a gap."""

    def times(values: Sequence[float | None] | None) -> list[float] | None:
        return None if values is None else [float("nan") if value is None else value * scale for value in values]

    style = {key: entry[key] for key in ("label", "colour", "dashes")}
    if "xs" in entry:
        parts = {name: times(entry.get(f"{name}s")) for name in ("y", "low", "high")}
        return {**style, "x": list(entry["xs"]), **parts, "steps": entry.get("steps")}
    column = groups[entry["group"]].columns[entry["key"]]
    parts = {name: times(getattr(column, name)) for name in ("y", "low", "high")}
    return {**style, "x": list(column.x), **parts}


def as_csv(chart: dict[str, Any], lines: Sequence[dict[str, Any]]) -> str:
    """The numbers of a chart: a row for each place on the x axis, a column for each line and its bounds.

    Of a plane a row for each validation, and two columns for each line.
    """
    if chart["kind"] == "plane":
        name, places = STEP, [line["steps"] for line in lines]
        parts = [(part, f", {axis}") for part, axis in zip("xy", chart["axes"], strict=True)]
    else:
        name, places = chart["x"], [line["x"] for line in lines]
        parts = [("y", ""), ("low", ", least"), ("high", ", greatest")]
    columns = [
        (line["label"] + suffix, dict(zip(of_line, line[part], strict=True)))
        for line, of_line in zip(lines, places, strict=True)
        for part, suffix in parts
        if line[part] is not None
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name, *(label for label, _ in columns)])
    for x in sorted({x for of_line in places for x in of_line}):
        cells = [values.get(x) for _, values in columns]
        writer.writerow([x, *("" if cell is None or cell != cell else repr(cell) for cell in cells)])
    return text.getvalue()


def picture(chart: dict[str, Any], lines: Sequence[dict[str, Any]]) -> Figure:
    """One chart, wide enough for one column of a paper, with the names of the lines at its right; a plane is square."""
    named = len(lines) > 1
    stack = chart["kind"] == "stack"
    margin = 0.25 + 0.075 * max(len(line["label"]) for line in lines) * named + 0.2 * stack  # inches
    width = 3.4 + margin
    plane = chart["kind"] == "plane"
    figure = Figure(figsize=(width, 3.4 if plane else 2.4), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1 - margin / width, 1))
    panel = figure.subplots()
    ends = [] if stack else [_line(panel, line, plane) for line in lines]
    if stack:
        _stack(panel, lines)
    tidy(panel, percent=chart["unit"].startswith("%"))
    if chart.get("log"):
        _powers(panel, sorted({x for line in lines for x in line["x"]}))
    panel.set_title(textwrap.fill(chart["title"], 48), fontsize=9, color=INK, loc="left")
    x, y = (f"{axis}, {chart['unit']}" for axis in chart["axes"]) if plane else (chart["x"], chart["unit"])
    panel.set_xlabel(x, fontsize=8, color=INK)
    panel.set_ylabel(y, fontsize=8, color=INK)
    if named and not stack:
        known = [(line["label"], end, COLOURS[line["colour"]]) for line, end in zip(lines, ends, strict=True)]
        name_ends(panel, [entry for entry in known if entry[1] is not None], weight="normal")
    return figure


def _line(panel: Axes, line: dict[str, Any], dotted: bool = False) -> float | None:
    """Draw a line with its band, and a large dot at its end if asked; returns the height of its end, if it has one."""
    style = {"color": COLOURS[line["colour"]], "linestyle": DASHES[line["dashes"]]}
    marker = "o" if len(line["x"]) <= 12 else ""
    panel.plot(line["x"], line["y"], linewidth=1.2, marker=marker, markersize=2.5, zorder=3, **style)
    if line["low"] is not None:
        panel.fill_between(line["x"], line["low"], line["high"], color=style["color"], alpha=0.15, linewidth=0)
    if dotted:
        panel.plot(line["x"][-1:], line["y"][-1:], "o", markersize=6, color=style["color"], zorder=4, clip_on=False)
    return next((value for value in reversed(line["y"]) if value == value), None)


def _stack(panel: Axes, lines: Sequence[dict[str, Any]]) -> None:
    """Draw areas one above the other, with a legend in their order."""
    sums: dict[int, float] = {}
    areas = []
    for line in lines:
        low = [sums.get(x, 0.0) for x in line["x"]]
        high = [a + (0.0 if b != b else b) for a, b in zip(low, line["y"], strict=True)]
        style = {"color": FILLS[line["colour"]], "alpha": OPACITY[line["dashes"]]}
        areas.append(panel.fill_between(line["x"], low, high, label=line["label"], linewidth=0, **style))
        sums |= dict(zip(line["x"], high, strict=True))
    panel.set_ylim(0, 100)
    panel.margins(x=0)
    legend = panel.legend(
        handles=areas[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, handlelength=1
    )
    legend.set_in_layout(False)


def _powers(panel: Axes, xs: Sequence[int]) -> None:
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(xs))
    panel.xaxis.set_major_formatter(FixedFormatter([str(x) for x in xs]))
    panel.xaxis.set_minor_locator(NullLocator())
