r"""GRPO and PAEC on the quick start's task, one seed. `python -m benchmarks.first_run [--record RUN ...]`

Draws `docs/first_run.svg` from the recorded runs in `benchmarks/results/first_run/`, without training anything. With
`--record` it first records finished runs, each under the name of its method: made by

    for method in none paec; do
      bash launch/run_tiny_cpu_paec.sh method=$method seed=1 run.name=first-$method trainer.test_freq=10
    done
    python -m benchmarks.first_run --record outputs/first-none outputs/first-paec
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from data_prep.files import atomic_write
from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.paec.common.repository import REPOSITORY
from recipe.paec.compare.figures import FAINT, INK, line_style, tidy
from recipe.paec.run import reference_run
from recipe.paec.run.drawing import smoothed
from recipe.paec.run.metric_names import ENTROPY
from recipe.paec.run.summary import accuracy, anchored

RESULTS = reference_run.FOLDER
PICTURE = REPOSITORY / "docs" / "first_run.svg"
LABELS = {"none": "GRPO", "paec": "GRPO + PAEC"}


def record(run: Path, folder: Path = RESULTS) -> Path:
    """Write what the picture and a run's summary need of a run to `folder`/<method>.jsonl; returns the file.

    The first line says what was run (`reference_run.about`). Then there is one for each step: step, entropy and
    accuracy, and where the method has an anchor hbar and floor; entropies in nats.
    """
    config = OmegaConf.load(run / "config.yaml")
    method = str(config.identity.method)
    lines: list[dict[str, Any]] = [reference_run.about(config)]
    for found in read_metrics(run / METRICS_FILE):
        line: dict[str, Any] = {"step": found["step"]}
        if ENTROPY in found:
            line["entropy"] = round(found[ENTROPY], 5)
        if scores := list(accuracy(found).values()):
            line["accuracy"] = round(scores[0], 5)
        if (prefix := anchored(found)) is not None:
            line["hbar"] = round(found[f"{prefix}selected_entropy"], 5)
            line["floor"] = round(found[f"{prefix}floor"], 5)
        lines.append(line)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{method}.jsonl"
    with atomic_write(file) as partial:
        partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def read(folder: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """Method -> recorded lines, GRPO first."""
    files = sorted(folder.glob("*.jsonl"), key=lambda file: (file.stem not in LABELS, file.stem))
    return {file.stem: read_metrics(file) for file in files}


def picture(runs: dict[str, list[dict[str, Any]]]) -> Figure:
    """Token entropy, entropy of PAEC's selected positions with its floor, and validation accuracy, over steps."""
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    entropy, selected, score = figure.subplots(1, 3)
    shown = {}
    for place, (method, lines) in enumerate(runs.items()):
        style = line_style(place)
        steps, values = reference_run.column(lines, "entropy")
        entropy.plot(steps, values, linewidth=0.5, alpha=0.35, color=style["color"])
        (shown[LABELS.get(method, method)],) = entropy.plot(steps, smoothed(values, 5), linewidth=1.8, **style)
        score.plot(*reference_run.column(lines, "accuracy"), linewidth=1.8, marker="o", markersize=3, **style)
        steps, values = reference_run.column(lines, "hbar")
        if values:
            selected.plot(steps, values, linewidth=0.5, alpha=0.35, color=style["color"])
            selected.plot(steps, smoothed(values, 5), linewidth=1.8, **style)
            selected.plot(*reference_run.column(lines, "floor"), linewidth=1.2, color=INK, linestyle=(0, (4, 2)))
            selected.annotate("floor", (steps[len(steps) // 10], lines[-1]["floor"]), xytext=(0, -11),
                              textcoords="offset points", fontsize=8, color=INK)  # fmt: skip
    titles = ("token entropy, nats", "entropy of selected positions, nats", "validation accuracy (avg@4)")
    for panel, title in zip((entropy, selected, score), titles, strict=True):
        tidy(panel)
        panel.set_title(title, fontsize=10, color=INK, loc="left")
        panel.set_xlabel("training step", fontsize=9, color=INK)
        panel.axhline(panel.get_ylim()[0], color=FAINT, linewidth=0.8)
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=len(shown), frameon=False, fontsize=9)
    return figure


def main() -> None:
    """Record runs, if any are named, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path, nargs="+", default=[], metavar="RUN", help="record these runs first")
    options = parser.parse_args()
    for run in options.record:
        print(record(run))
    if not (runs := read()):
        parser.error(
            f"no recorded run in {RESULTS.relative_to(REPOSITORY)}: train as above, and name the runs with --record"
        )
    with matplotlib.rc_context({"svg.hashsalt": "first_run", "svg.fonttype": "none"}), atomic_write(PICTURE) as partial:
        picture(runs).savefig(partial, format="svg", metadata={"Date": None})
    print(PICTURE.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
