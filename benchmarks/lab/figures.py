"""The figures of docs/results.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.comparison import corrected, in_words
from benchmarks.lab.knob_search import method_of
from benchmarks.lab.records import BASELINE, PAEC, REFERENCE, Runs, quantities
from benchmarks.lab.why import KINDS, mean
from data_prep.files import atomic_write
from recipe.paec.compare.palette import COLOURS
from recipe.paec.scoring.estimators import Difference, powers_of_two

MOST_CURVES = 6
"""Methods whose curves, with the range of their seeds, can be told apart in one figure."""
COLORS = {"better": "C2", "no significant difference": "0.55", "worse": "C3", "one seed: no interval": "0.8"}
"""Of what `in_words` says."""
PALETTE = (*COLOURS, "C4", "C5", "C7", "C8")
"""Those of all pictures, and four more."""
CURVE_COLORS = dict(
    zip(
        (
            *(BASELINE, PAEC, "entropy_bonus", "paec_text", "pass_at_k", "unlikeliness", "paec_no_mask"),
            *("pass_at_k+paec", "entropy_bonus.coefficient=0.01", "paec.entropy=normalized"),
        ),
        PALETTE,
        strict=True,
    )
)
"""Of settings and methods in the figures of curves, the same in all of them; others take what is left."""
LEAST_RANGE = 0.1
"""Of an axis of shares: a smaller one would make an effect of noise."""
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
"""Line styles: the second is for methods for which no color is left, and so on."""
LEGEND_ROWS = 5
"""Rows of a legend that the figures have room for."""
Panel = tuple[np.ndarray, Mapping[str, tuple[np.ndarray, int | None]]]
"""pass@1, pass@2, ... before training, and each method's with the k from which on the former is higher, if it is."""


def draw(runs: dict[str, Runs], gained: dict[str, dict[str, Difference]], file: Path) -> None:
    """The figure of a section: curves, or of more than MOST_CURVES methods their `differences` to the baseline."""
    pyplot = _pyplot()
    figure = _intervals(pyplot, gained) if len(runs) > MOST_CURVES else _curves(pyplot, runs)
    _save(pyplot, figure, file)


def shows(runs: dict[str, Runs]) -> str:
    """What is on the figure that `draw` makes of these runs, for those who cannot see it."""
    if len(runs) > MOST_CURVES:
        return "Every method's hypervolumes minus GRPO's, with intervals"
    return "Accuracy against pass@32 and expressions at every validation; token entropy"


def draw_other(runs: dict[str, Runs], file: Path) -> None:
    """The figure of another task, with its quantities: curves, of more than MOST_CURVES methods without the ranges."""
    pyplot = _pyplot()
    _save(pyplot, _curves(pyplot, runs, [*quantities(runs[BASELINE])][1:]), file)


def draw_pass_at_k(panels: Mapping[str, Panel], file: Path) -> None:
    """pass@k over k: a panel for each title."""
    pyplot = _pyplot()
    size = (3.5 * len(panels), 3.6)
    figure, (axes,) = pyplot.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    styles = _styles(dict.fromkeys(name for _, curves in panels.values() for name in curves))
    shown: dict[str, Any] = {}
    for axis, (title, (start, curves)) in zip(axes, panels.items(), strict=True):
        k = np.arange(1, len(start) + 1)
        shown["before training"] = axis.plot(k, start, "--", color="black", linewidth=1)[0]
        for name, (curve, crossing) in curves.items():
            shown[_label(name)] = axis.plot(k, curve, linewidth=1.4, **styles[name])[0]
            if crossing is not None:
                axis.plot([crossing], [curve[crossing - 1]], markersize=4, **_dot(styles[name]))
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks := powers_of_two(len(start)), ticks)
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="k tries")
    axes[0].set(ylabel="pass@k")
    _legend(figure, shown)
    _save(pyplot, figure, file)


def draw_why(found: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """The figure of `why`: the entropy of decisions over the training, and where the mask's mass is."""
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    steps = found["none"][0]["step"]
    for place, kind in enumerate(KINDS[:3]):
        for method, label, line in (("none", "GRPO", "--"), ("paec", "PAEC", "-")):
            values = np.array([record["entropy"] for record in found[method]])[..., place]
            left.plot(steps, values.mean(0), line, color=f"C{place}", linewidth=1.3, label=f"{kind}, {label}")
            left.fill_between(steps, values.min(0), values.max(0), color=f"C{place}", alpha=0.12, linewidth=0)
    left.set(xlabel="step", ylabel="entropy, nats")
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=7.5, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    rows = np.arange(len(KINDS))
    right.barh(rows - 0.2, mean(found, "paec", "mass")[0], 0.4, color="C0", label="share of the mask's mass")
    right.barh(rows + 0.2, mean(found, "paec", "share")[0], 0.4, color="0.7", label="share of the tokens")
    right.set_yticks(rows, KINDS)
    right.invert_yaxis()
    right.legend(frameon=False, fontsize=7.5)
    _save(pyplot, figure, file)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "results", "font.size": 9, "axes.spines.top": False})
    pyplot.rcParams["axes.spines.right"] = False
    return pyplot


def _save(pyplot: Any, figure: Any, file: Path) -> None:
    with atomic_write(file) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _curves(pyplot: Any, runs: dict[str, Runs], against: Sequence[str] = ("pass@32", "expressions")) -> Any:
    """Frontiers of accuracy and two quantities, and entropy; of at most MOST_CURVES methods with the seeds' range."""
    few = len(runs) <= MOST_CURVES
    size = (10.5, 3.7 if few else 4.2)
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=size, layout="constrained")
    styles = _styles(runs)
    for name, one in runs.items():
        style, label = styles[name], _label(name)
        values = {key: of.mean((0, -1)) for key, of in quantities(one).items()}
        for axis, key in zip((left, middle), against, strict=True):
            axis.plot(values["accuracy"], values[key], marker="o" if few else "", markersize=3, linewidth=1, **style)
            axis.plot(values["accuracy"][-1:], values[key][-1:], markersize=6, **_dot(style))
            axis.set(xlabel="accuracy", ylabel={"expressions": "expressions of 32"}.get(key, key))
            low, high = axis.get_ylim()
            if (more := LEAST_RANGE - (high - low)) > 0:
                axis.set_ylim(low - more / 2, high + more / 2)
        if few:
            ends = one.entropy.min(0), one.entropy.max(0)
            right.fill_between(one.steps, *ends, color=style["color"], alpha=0.15, linewidth=0)
        right.plot(one.steps, one.entropy.mean(0), linewidth=1.2, label=label, **style)
    right.set(xlabel="step", ylabel="token entropy, nats")
    _legend(figure, dict(zip(*reversed(right.get_legend_handles_labels()), strict=True)))
    return figure


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Color and line: CURVE_COLORS, for the first of a method's names; for all others what is left, no two alike.

    They repeat only after ten colors in each of LINES.
    """
    colors: dict[str, str | None] = {}
    for name in names:
        color = CURVE_COLORS.get(name) or CURVE_COLORS.get(method_of(name))
        colors[name] = None if color in colors.values() else color
    every = [(color, line) for line in LINES for color in PALETTE]
    free = cycle(one for one in every if one[0] not in colors.values() or one[1] != LINES[0])
    given = {name: (color, LINES[0]) if color else next(free) for name, color in colors.items()}
    return {name: {"color": color, "linestyle": line} for name, (color, line) in given.items()}


def _dot(style: Mapping[str, Any]) -> dict[str, Any]:
    """A dot of the color of a style, hollow where the line is not the first of LINES."""
    hollow = {} if style["linestyle"] == LINES[0] else {"markerfacecolor": "white"}
    return {"marker": "o", "linestyle": "none", "color": style["color"], **hollow}


def _legend(figure: Any, shown: Mapping[str, Any]) -> None:
    """Lines by their labels, below the panels, in as many columns as the longest label leaves room for.

    The figure grows by the rows that are more than LEGEND_ROWS.
    """
    letters = 15 * figure.get_figwidth()
    columns = max(1, min(4, int(letters / (max(map(len, shown)) + 9))))
    more = max(0, math.ceil(len(shown) / columns) - LEGEND_ROWS)
    if more:
        figure.set_figheight(figure.get_figheight() + 0.19 * more)
    figure.legend(shown.values(), shown.keys(), frameon=False, loc="outside lower center", ncols=columns)


def _label(name: str) -> str:
    return "GRPO" if name == BASELINE else name


def _intervals(pyplot: Any, gained: dict[str, dict[str, Difference]]) -> Any:
    """Every method's hypervolumes minus the baseline's, in the order of the first."""
    order = sorted(gained, key=lambda name: gained[name]["pass@32"].value)
    figure, axes = pyplot.subplots(1, 2, figsize=(8.5, 1.2 + 0.19 * len(order)), layout="constrained", sharey=True)
    used = set()
    for axis, key in zip(axes, REFERENCE, strict=True):
        p = corrected({name: gained[name][key].p for name in order})
        for place, name in enumerate(order):
            of = gained[name][key]
            words = in_words(of, p[name])
            used.add(words)
            color = COLORS[words]
            if of.low is not None and of.high is not None:
                axis.plot([of.low, of.high], [place, place], "-", color=color, linewidth=1)
            axis.plot([of.value], [place], "o", color=color, markersize=4)
        axis.axvline(0, color="black", linewidth=0.7)
        axis.locator_params(axis="x", nbins=6)
        axis.set(xlabel=f"hypervolume of accuracy and {key}, minus GRPO's")
    axes[0].set_yticks(range(len(order)), [method_of(name) for name in order], fontsize=7.5)
    axes[0].set_ylim(-0.7, len(order) - 0.3)
    handles = [
        pyplot.Line2D([], [], color=color, marker="o", linewidth=1, markersize=4, label=words)
        for words, color in COLORS.items()
        if words in used
    ]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(handles))
    return figure
