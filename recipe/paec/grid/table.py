"""The table of a grid of runs (recipe.paec.grid), and its figure, from `metrics.jsonl` of every finished run.

For a run, from the line of its last step and the lines of its steps:

    accuracy  `val/<source>/avg@n`, `maj@n`, `pass@k` of the validation after the last step, fractions of 1
    entropy   `actor/entropy`, nats, mean over the last tenth of the steps (rounded up)
    length    `response_length/mean` of the training rollouts, tokens, mean over the same steps
    seconds   `timing_s/step` without saving a checkpoint, median over the steps; validation is not in it

For a method: the mean over its seeds with Student's interval; no interval for a single seed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from matplotlib.figure import Figure

from data_prep.files import atomic_write
from recipe.paec.common.console import say
from recipe.paec.common.files import write_json
from recipe.paec.compare.figures import INK, PANEL, line_style, tidy
from recipe.paec.compare.palette import places
from recipe.paec.grid.request import Grid
from recipe.paec.grid.runs import GridRun
from recipe.paec.run.summary import ENTROPY, tail_mean
from recipe.paec.scoring.display import heading, in_papers_order, markdown
from recipe.paec.scoring.estimators import LEVEL, t_interval

TABLE, VALUES, CURVES = "table.md", "table.json", "curves.png"
LENGTH, STEP_TIME, SAVE_TIME = "response_length/mean", "timing_s/step", "timing_s/save_checkpoint"
AVERAGE = "average"
"""Name of the unweighted mean over several validation sets."""
PLAIN = {"entropy": ("entropy", ".4f"), "length": ("length", ".1f"), "seconds": ("s / step", ".1f")}
"""Value other than an accuracy -> its column and format."""
_ACCURACY = re.compile(r"val/(.+)/((?:avg|maj|pass)@\d+)")


# ---- values ----------------------------------------------------------------------------------------------------------


def accuracies(record: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Validation set -> {avg@n, maj@n, pass@k} of one line of metrics.jsonl; of several sets also their mean."""
    found: dict[str, dict[str, float | None]] = {}
    for key, value in record.items():
        if match := _ACCURACY.fullmatch(key):
            found.setdefault(match[1], {})[match[2]] = value
    found = {source: found[source] for source in in_papers_order(found)}
    if len(found) > 1:
        metrics = set.intersection(*(set(of_source) for of_source in found.values()))
        found[AVERAGE] = {
            metric: _mean([of_source[metric] for of_source in found.values()]) for metric in sorted(metrics)
        }
    return found


def run_values(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{accuracy: as `accuracies`, entropy, length, seconds} of a finished run; None for what was not measured."""
    trained = [record for record in records if STEP_TIME in record]
    return {
        "accuracy": accuracies(records[-1]),
        "entropy": tail_mean(trained, ENTROPY),
        "length": tail_mean(trained, LENGTH),
        "seconds": median(record[STEP_TIME] - record.get(SAVE_TIME, 0.0) for record in trained),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """None if a value is not known (NaN is null in metrics.jsonl): leaving it out would change the mean."""
    return None if None in values else fmean(values)


def _over_seeds(values: Sequence[float | None]) -> dict[str, float | None] | None:
    return None if not values or None in values else asdict(t_interval(values))


def summarize(runs: Sequence[GridRun], failed: Mapping[Path, str], about: Mapping[str, Any]) -> dict[str, Any]:
    """The table as JSON.

    Args:
        runs: all runs of the grid, method by method.
        failed: directory of a run -> why its last attempt failed.
        about: what was compared, recorded as given.

    Returns:
        about, level; methods, each {label, seeds, of, accuracy, entropy, length, seconds}, every value {value, low,
        high} over the finished seeds or null; runs, each with its directory, step and, if finished, its own values; and
        remarks, sentences that a reader of the table must know.
    """
    rows, listed = [], []
    for label in dict.fromkeys(run.label for run in runs):
        own = [run for run in runs if run.label == label]
        values = {run.seed: run_values(run.records()) for run in own if run.finished()}
        for run in own:
            entry = {"label": label, "seed": run.seed, "directory": str(run.directory), "steps": run.steps}
            entry |= {"step": run.step(), "failed": failed.get(run.directory), "values": values.get(run.seed)}
            listed.append(entry)
        sets = [set_ for v in values.values() for set_ in v["accuracy"]]
        rows.append(
            {
                "label": label,
                "seeds": list(values),
                "of": len(own),
                "accuracy": {
                    name: {
                        metric: _over_seeds([v["accuracy"].get(name, {}).get(metric) for v in values.values()])
                        for metric in next(v for v in values.values() if name in v["accuracy"])["accuracy"][name]
                    }
                    for name in dict.fromkeys(sets)
                },
                **{key: _over_seeds([v[key] for v in values.values()]) for key in PLAIN},
            }
        )
    return {"about": dict(about), "level": LEVEL, "methods": rows, "runs": listed, "remarks": _remarks(runs)}


def _remarks(runs: Sequence[GridRun]) -> list[str]:
    commits = {}
    for run in runs:
        file = run.directory / "versions.json"
        if file.is_file():
            commits.setdefault(json.loads(file.read_text(encoding="utf-8"))["git_commit"], run)
    if len(commits) < 2:
        return []
    listed = ", ".join(f"{commit} ({run.directory.name})" for commit, run in commits.items())
    return [f"the runs were started, or last resumed, with different commits of this repository: {listed}"]


# ---- text ------------------------------------------------------------------------------------------------------------


def _cell(estimate: Mapping[str, float | None] | None, form: str, scale: float = 1.0) -> str:
    if estimate is None:
        return "-"
    text = f"{scale * estimate['value']:{form}}"
    if estimate["low"] is None:
        return text
    return f"{text} \N{PLUS-MINUS SIGN} {scale * (estimate['high'] - estimate['value']):{form}}"


def _headline(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(validation set, metric) of the accuracy columns: avg, maj and pass at the n that was drawn."""
    columns = {}
    for row in result["methods"]:
        for name, metrics in row["accuracy"].items():
            for metric in metrics:
                if metric.startswith("avg@"):
                    n = metric.removeprefix("avg@")
                    columns |= {(name, f"{kind}@{n}"): None for kind in ("avg", "maj", "pass")}
    return list(columns)


def to_markdown(result: Mapping[str, Any]) -> str:
    """The table with its caption, followed by every run that is not in it."""
    columns = _headline(result)
    sets = list(dict.fromkeys(name for name, _ in columns))
    names = {name: f"{heading(name)} " if len(sets) > 1 else "" for name in sets}
    rows = [["Method", "seeds", *(names[name] + metric for name, metric in columns), *(c for c, _ in PLAIN.values())]]
    for row in result["methods"]:
        seeds = str(len(row["seeds"])) + (f" of {row['of']}" if len(row["seeds"]) < row["of"] else "")
        cells = [_cell(row["accuracy"].get(name, {}).get(metric), ".1f", 100) for name, metric in columns]
        rows.append([row["label"], seeds, *cells, *(_cell(row[key], form) for key, (_, form) in PLAIN.items())])
    steps = {run["steps"] for run in result["runs"]}
    on = ", ".join(name for name in sets if name != AVERAGE)
    accuracies = f" Accuracies in percent: the validation on {on} after the last step." if sets else ""
    caption = (
        f"{result['about']['experiment']}, {', '.join(map(str, sorted(steps)))} steps.{accuracies} Entropy (nats) and "
        "response length (tokens) of the training rollouts: mean over the last tenth of the steps. s / step: median, "
        "without validation and checkpoints. "
        f"\N{PLUS-MINUS SIGN}: {100 * result['level']:.0f} % t interval over the seeds; without it: one seed, "
        "whose spread is not known."
    )
    if result["about"]["overrides"]:
        caption += f" Overrides: {' '.join(result['about']['overrides'])}."
    unfinished = [_unfinished(run) for run in result["runs"] if run["values"] is None]
    below = ["Not in the table:\n", *unfinished] if unfinished else []
    notes = [f"Note: {remark}." for remark in result["remarks"]]
    return "\n".join([markdown(rows), caption + "\n", *below, *notes]).rstrip() + "\n"


def _unfinished(run: Mapping[str, Any]) -> str:
    place = "not started" if run["step"] is None else f"at step {run['step']} of {run['steps']}"
    why = f"; its last attempt failed: {run['failed']}" if run["failed"] else ""
    return f"* {run['label']}, seed {run['seed']}: {place}{why}"


# ---- figure ----------------------------------------------------------------------------------------------------------


def _lines(runs: Sequence[GridRun]) -> dict[str, dict[str, list[dict[int, float]]]]:
    """Panel -> label -> for each finished seed, step -> value."""
    accuracy: dict[str, dict[str, list[dict[int, float]]]] = {}
    entropy: dict[str, list[dict[int, float]]] = {}
    for run in runs:
        if not run.finished():
            continue
        curves: dict[str, dict[int, float]] = {}
        for record in run.records():
            sets = accuracies(record)
            for name in [AVERAGE] if AVERAGE in sets else sets:
                for metric, value in sets[name].items():
                    if metric.startswith("avg@") and value is not None:
                        curves.setdefault(f"{heading(name)} {metric}, %", {})[record["step"]] = 100 * value
        for panel, curve in curves.items():
            accuracy.setdefault(panel, {}).setdefault(run.label, []).append(curve)
        found = {r["step"]: r[ENTROPY] for r in run.records() if r.get(ENTROPY) is not None}
        entropy.setdefault(run.label, []).append(found)
    return {**accuracy, "entropy, nats": entropy}


def picture(runs: Sequence[GridRun]) -> Figure | None:
    """Accuracy of the validations and entropy over steps: means of the finished seeds; None before one has finished."""
    panels, labels = _lines(runs), list(dict.fromkeys(run.label for run in runs))
    if not any(panels.values()):
        return None
    figure = Figure(figsize=(2.8 * PANEL[0], 0.6 + 1.2 * PANEL[1] * len(panels)), layout="constrained")
    shown, place = {}, dict(zip(labels, places(labels), strict=True))
    for panel, (title, lines) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        for label, seeds in lines.items():
            steps = sorted(set.intersection(*map(set, seeds)))
            values = [[curve[step] for curve in seeds] for step in steps]
            style = line_style(place[label])
            (shown[label],) = panel.plot(steps, list(map(fmean, values)), linewidth=1.6, zorder=3, **style)
            if len(seeds) > 1:
                low, high = list(map(min, values)), list(map(max, values))
                panel.fill_between(steps, low, high, color=style["color"], alpha=0.12, linewidth=0)
        tidy(panel)
        panel.set_title(title, fontsize=10, color=INK, loc="left")
    figure.legend(shown.values(), shown, loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK)
    figure.supxlabel("training step      (line: mean, band: range over the seeds)", fontsize=10, color=INK)
    return figure


def write(
    folder: Path, runs: Sequence[GridRun], failed: Mapping[Path, str], about: Mapping[str, Any]
) -> tuple[str, list[Path]]:
    """Write table.md, table.json and curves.png, each completely or not at all; returns the table and the files."""
    result = summarize(runs, failed, about)
    text, figure = to_markdown(result), picture(runs)
    with atomic_write(folder / TABLE) as partial:
        partial.write_text(text, encoding="utf-8")
    write_json(folder / VALUES, result)
    files = [folder / TABLE, folder / VALUES]
    if figure is not None:
        with atomic_write(folder / CURVES) as partial:
            figure.savefig(partial, format="png", dpi=160)
        files.append(folder / CURVES)
    return text, files


# ---- the table -------------------------------------------------------------------------------------------------------


def show_table(grid: Grid, runs: Sequence[GridRun], folder: Path, failed: Mapping[Path, str]) -> None:
    """Write the table of the finished runs, and print it."""
    text, files = write_table(grid, runs, folder, failed)
    say("\n".join(["", text, *map(str, files)]))


def write_table(
    grid: Grid, runs: Sequence[GridRun], folder: Path, failed: Mapping[Path, str]
) -> tuple[str, list[Path]]:
    """Write the table of a grid; returns its text and the files."""
    overrides = [o for o in grid.overrides if not o.lstrip("+").startswith(("run.", "cluster"))]
    about = {"experiment": grid.experiment, "methods": grid.words["METHODS"].split(), "overrides": overrides}
    return write(folder, runs, failed, about)
