"""The sections of docs/results.md about other tasks than the quick start's: every method at the middle and the end."""

from __future__ import annotations

from pathlib import Path

from benchmarks.lab.comparison import DRAWS, added, corrected, differences, in_bold
from benchmarks.lab.figures import draw_other
from benchmarks.lab.records import (
    BASELINE,
    PAEC,
    SAMPLES,
    Runs,
    comparable,
    decimals,
    levels,
    means,
    means_and_seeds,
    quantities,
    read,
    where_and_when,
)

SPLIT = "validation"
"""Nothing is chosen on these tasks, so their validation problems measure."""
TASKS = {
    "word_problems": ("## One answer to each problem", "Word problems"),
    "countdown_four": ("## A longer search", "Countdown with four numbers"),
    "countdown_four_kept": (
        "## The longer search from another warm start",
        "The same task from the warm start that the repository keeps (`task=countdown_four`)",
    ),
}
"""Folder of records -> heading, and what the task is."""


def complete(folder: Path) -> dict[str, Runs]:
    """The `comparable` runs of a folder; none without two seeds and another method than the baseline."""
    runs = comparable(read(folder, SPLIT))
    return runs if len(runs) > 1 and len(runs[BASELINE].seeds) > 1 else {}


def section(folder: Path, figure: str, draws: int = DRAWS, figures: Path | None = None) -> str:
    """The section of a folder of TASKS, with its figure; "" without `complete` runs.

    The figure goes to the folder `figures`, if one is given.
    """
    runs = complete(folder)
    if not runs:
        return ""
    if figures is not None:
        draw_other(runs, figures / figure)
    grpo, (heading, what) = runs[BASELINE], TASKS[folder.name]
    lines = [
        heading,
        "",
        f"{what}: {grpo.correct.shape[-1]} problems x {SAMPLES} responses, {len(grpo.seeds)} seeds (mean, and each "
        f"seed), {grpo.steps[-1]} steps; `paec lab sweep benchmarks/lab/{folder.name}.yaml`, then "
        f"`python -m benchmarks.lab.results`; {where_and_when(runs.values())}.",
        "",
        *left_out({name: one for name, one in read(folder, SPLIT).items() if name not in runs}),
        f"![Accuracy against the other quantities at every validation; token entropy]({figure})",
        "",
    ]
    return "\n".join(lines + tables(runs, draws))


def tables(runs: dict[str, Runs], draws: int = DRAWS, hypervolumes: bool = False) -> list[str]:
    """The quantities of the baseline and the others at the middle and the end, then their differences: lines of a page.

    `hypervolumes`: whether the differences to the baseline have those too.
    """
    grpo = runs[BASELINE]
    names = [*quantities(grpo)]
    half, last = (len(grpo.steps) - 1) // 2, len(grpo.steps) - 1
    lines = [
        f"| | step | {' | '.join(names)} | token entropy |",
        f"|---|---|{'---|' * len(names)}---|",
        _row(grpo, 0, "before training"),
        *(_row(one, place, f"`{name}`") for place in (half, last) for name, one in runs.items()),
    ]
    lines += ["", *_differences(runs, BASELINE, "GRPO", draws, hypervolumes)]
    if PAEC in runs and len(runs) > 2:
        beside = {name: one for name, one in runs.items() if name != BASELINE}
        lines += ["", *_differences(beside, PAEC, "PAEC", draws)]
    for alone, both in added(runs):
        pair = {alone: runs[alone], both: runs[both]}
        lines += ["", *_differences(pair, alone, f"`{alone}` alone", draws)]
    return lines


def _differences(
    runs: dict[str, Runs], from_which: str, called: str, draws: int, hypervolumes: bool = False
) -> list[str]:
    """The table of every method minus one of them."""
    other = runs[from_which]
    beside = [*quantities(other)][1:]
    corrects = " after Holm's correction for the number of methods" if len(runs) > 2 else ""
    columns = [
        ("accuracy", "accuracy", decimals("accuracy")),
        *((f"last {name}", name, decimals(name)) for name in beside),
        *((f"equal {name}", f"{name} at equal accuracy", decimals(name)) for name in beside),
        *((name, f"hypervolume of accuracy and {name}", 4) for name in beside if hypervolumes),
    ]
    lines = [
        f"Minus {called}, at step {other.steps[-1]}, and in the mean over the accuracies that both reach; 95 % "
        f"intervals, bold what differs{corrects}:",
        "",
        f"| | {' | '.join(words for _, words, _ in columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    found = {name: differences(one, other, draws) for name, one in runs.items() if name != from_which}
    p = {key: corrected({name: of[key].p for name, of in found.items()}) for key, _, _ in columns}
    for name, of in found.items():
        cells = [in_bold(of[key], digits, p[key][name]) for key, _, digits in columns]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def left_out(runs: dict[str, Runs]) -> list[str]:
    """The lines that name what is recorded, but in no table: methods with other seeds or validations."""
    if not runs:
        return []
    said = [
        f"`{name}` with seed{'s'[: len(one.seeds) > 1]} {', '.join(map(str, one.seeds))} to step {one.steps[-1]} "
        f"({', '.join(f'{key} {value}' for key, value in zip(levels(one), means(one), strict=True))})"
        for name, one in runs.items()
    ]
    return [f"Recorded, but not with GRPO's seeds and validations, so in no table: {'; '.join(said)}.", ""]


def _row(one: Runs, place: int, label: str) -> str:
    """A method's quantities at a validation."""
    return f"| {label} | {one.steps[place]} | {' | '.join(means_and_seeds(one, place))} |"
