"""A figure of evaluations over training steps: a panel for each benchmark and metric, the runs overlaid.

Inputs are folders with curve.json, `{"run": name, "steps": [{"step": 0, "scores": "path/of/scores.json"}, ...]}`, paths
relative to the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_prep.files import atomic_write
from data_prep.progress import with_progress
from recipe.paec.common.errors import UserError
from recipe.paec.compare.comparability import check
from recipe.paec.compare.comparison import estimate, problem_means
from recipe.paec.compare.evaluations import (
    CURVE_FILE,
    Evaluation,
    SeedGroup,
    choose,
    distinct,
    grouped,
    read_curve_file,
    read_run,
)
from recipe.paec.compare.figures import INK, PANEL, line_style, name_ends, tidy
from recipe.paec.compare.palette import places
from recipe.paec.scoring.display import heading, in_papers_order
from recipe.paec.scoring.estimators import LEVEL

METRICS = {"avg": "avg@n", "maj": "maj@n", "pass": "pass@n"}
"""Metric -> label of its row of panels."""


@dataclass(frozen=True)
class Curve:
    """One line of each panel: a method, evaluated at several steps."""

    name: str
    steps: tuple[int, ...]
    methods: tuple[SeedGroup, ...]
    """At each step, one run per seed."""


def read_curves(arguments: Sequence[str]) -> list[Curve]:
    """The curves of a command line (`folder` or `name=folder`; one name, several seeds), in order.

    Raises:
        UserError: no or a bad curve.json, or seeds of one method that were not evaluated at the same steps.
    """
    named = []
    for name, folder in distinct(arguments):
        run, files = read_curve_file(folder)
        named.append((name, run, (folder / CURVE_FILE, {step: read_run(file) for step, file in files.items()})))
    curves = []
    for name, seeds in grouped(named).items():
        (first, runs), *others = seeds
        for path, theirs in others:
            if theirs.keys() != runs.keys():
                raise UserError(
                    f"{path} and {first} are seeds of {name} at different steps "
                    f"({', '.join(map(str, theirs))} and {', '.join(map(str, runs))}): evaluate the same checkpoints"
                )
        methods = [SeedGroup(name, tuple(theirs[step] for _, theirs in seeds)) for step in runs]
        curves.append(Curve(name, tuple(runs), tuple(methods)))
    return curves


def draw(arguments: Sequence[str], target: Path, benchmarks: Sequence[str] | None, allow_mismatch: bool) -> list[str]:
    """Draw the curves of a command line to `target` (.png or .svg), completely or not at all.

    Returns:
        Remarks, see `comparability.check`; UserError as there, in `read_curves`, and for another suffix.
    """
    form = target.suffix.lower().removeprefix(".")
    if form not in ("png", "svg"):
        raise UserError(f"--curve {target}: give a name that ends in .png or .svg")
    curves = read_curves(arguments)
    if benchmarks:
        curves = [Curve(c.name, c.steps, tuple(choose(c.methods, benchmarks))) for c in curves]
    remarks = check([method for curve in curves for method in curve.methods], list(METRICS), allow_mismatch)
    figure = picture(curves)
    with atomic_write(target) as partial:
        figure.savefig(partial, format=form, dpi=160)
    return remarks


def picture(curves: Sequence[Curve]) -> Figure:
    """Accuracy in percent over steps: a row for each of METRICS, a column for each benchmark; bands are intervals."""
    run: Evaluation = curves[0].methods[0].runs[0]
    benchmarks = in_papers_order(run.scores["benchmarks"])
    margin = 0.4 + 0.085 * max(len(curve.name) for curve in curves)  # inches, for the names on the right
    width, height = 0.6 + PANEL[0] * len(benchmarks) + margin, 0.9 + PANEL[1] * len(METRICS)
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1 - margin / width, 1))
    style = places([curve.name for curve in curves])
    panels = figure.subplots(len(METRICS), len(benchmarks), sharex=True, squeeze=False)
    for row, (metric, label) in zip(panels, METRICS.items(), strict=True):
        for panel, benchmark in zip(row, with_progress(benchmarks, label=label), strict=True):
            ends = [_line(panel, i, curve, benchmark, metric) for i, curve in zip(style, curves, strict=True)]
            tidy(panel)
        row[0].set_ylabel(f"{label}, %", color=INK)
        named = [(curve.name, end, line_style(i)["color"]) for i, curve, end in zip(style, curves, ends, strict=True)]
        name_ends(row[-1], named)
    for panel, benchmark in zip(panels[0], benchmarks, strict=True):
        n = run.scores["benchmarks"][benchmark]["samples"]
        panel.set_title(f"{heading(benchmark)}  (n = {n})", fontsize=10, color=INK, loc="left")
    figure.align_ylabels()
    figure.supxlabel(f"training step      (band: {100 * LEVEL:.0f} % interval of avg@n)", fontsize=10, color=INK)
    return figure


def _line(panel: Axes, index: int, curve: Curve, benchmark: str, metric: str) -> float:
    """Draw one curve with its band; returns the height of its end, percent."""
    values = [100 * float(problem_means(method, benchmark, metric).mean()) for method in curve.methods]
    panel.plot(
        curve.steps, values, marker="o", markersize=3, linewidth=1.8, clip_on=False, zorder=3, **line_style(index)
    )
    # Bands of three metrics and several runs would hide the lines: avg shows how wide they are.
    if metric == "avg":
        estimates = [estimate(method, [benchmark], metric) for method in curve.methods]
        if all(e.low is not None for e in estimates):
            low, high = [100 * e.low for e in estimates], [100 * e.high for e in estimates]
            panel.fill_between(curve.steps, low, high, color=line_style(index)["color"], alpha=0.12, linewidth=0)
    return values[-1]
