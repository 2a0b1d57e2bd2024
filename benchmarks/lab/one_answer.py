"""The section of docs/results.md about a task whose problems have one answer, so that responses can vote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.lab.comparison import DRAWS
from benchmarks.lab.records import (
    BASELINE,
    SAMPLES,
    Runs,
    gap_at_equal_accuracy,
    interval,
    over_problems,
    read,
    where_and_when,
)
from recipe.paec.scoring.estimators import Difference
from recipe.paec.scoring.two_level import crossed_bootstrap

FOLDER = "word_problems"
QUANTITIES = ("accuracy", "maj@32", "pass@32")


def of_problems(one: Runs) -> dict[str, np.ndarray]:
    """QUANTITIES of every problem, [S, K, P]; maj@32 is 1 where the most frequent answer is right.

    Raises:
        ValueError: the records have no majority votes.
    """
    if one.majority is None:
        raise ValueError(f"{one.name}: its records have no majority votes: the task's problems have several answers")
    return dict(zip(QUANTITIES, (one.correct / SAMPLES, one.majority.astype(float), one.correct > 0), strict=True))


def differences(one: Runs, baseline: Runs, draws: int = DRAWS) -> dict[str, Difference]:
    """Each quantity at the last step minus the baseline's, and "equal <quantity>", the same at equal accuracy.

    Intervals are those of `comparison.differences`: over the seeds, which both must have, and over the problems.
    """
    sides = [of_problems(side) for side in (one, baseline)]
    sizes = one.correct.shape[0], one.correct.shape[-1]

    def last(name: str, problems: np.ndarray) -> np.ndarray:
        ours, theirs = (over_problems(side[name][:, -1].astype(float), problems) for side in sides)
        return ours - theirs

    def equal(name: str, problems: np.ndarray) -> np.ndarray:
        curves = (
            tuple(over_problems(side[key].astype(float), problems) for key in ("accuracy", name)) for side in sides
        )
        return gap_at_equal_accuracy(*curves)

    statistics = {name: (last, name) for name in QUANTITIES}
    statistics |= {f"equal {name}": (equal, name) for name in QUANTITIES[1:]}
    return {
        key: crossed_bootstrap(
            lambda seeds, problems, gap=gap, name=name: (seeds * gap(name, problems)).sum(-1), sizes, resamples=draws
        )
        for key, (gap, name) in statistics.items()
    }


def section(folder: Path, draws: int = DRAWS) -> str:
    """The section; "" until every method has been run with the same two seeds or more."""
    runs = read(folder, "validation")
    if BASELINE not in runs or len(runs) < 2 or len({one.seeds for one in runs.values()}) != 1:
        return ""
    grpo = runs[BASELINE]
    if len(grpo.seeds) < 2:
        return ""
    lines = [
        "## One answer to each problem",
        "",
        f"Word problems, {grpo.correct.shape[-1]} validation problems x {SAMPLES} responses, {len(grpo.seeds)} seeds "
        f"(mean, and each seed), {grpo.steps[-1]} steps; `paec lab sweep benchmarks/lab/{folder.name}.yaml`, then "
        f"`python -m benchmarks.lab.results`; {where_and_when(runs.values())}.",
        "",
        f"| | step | {' | '.join(QUANTITIES)} | token entropy |",
        f"|---|---|{'---|' * len(QUANTITIES)}---|",
        _row(grpo, 0, "before training"),
        *(_row(one, -1, f"`{name}`") for name, one in runs.items()),
        "",
        f"Minus GRPO, at step {grpo.steps[-1]}, and in the mean over the accuracies that both reach:",
        "",
        f"| | {' | '.join(QUANTITIES)} | {' | '.join(f'{name} at equal accuracy' for name in QUANTITIES[1:])} |",
        f"|---|{'---|' * (2 * len(QUANTITIES) - 1)}",
    ]
    for name, one in runs.items():
        if name != BASELINE:
            found = differences(one, grpo, draws)
            lines.append(f"| `{name}` | {' | '.join(interval(of, 3) for of in found.values())} |")
    return "\n".join(lines)


def _row(one: Runs, place: int, label: str) -> str:
    """A method's quantities at a validation."""
    columns = [values[:, place].mean(-1) for values in of_problems(one).values()] + [one.entropy[:, place]]
    cells = [f"{of.mean():.3f} ({', '.join(f'{value:.3f}' for value in of)})" for of in columns]
    return f"| {label} | {one.steps[place]} | {' | '.join(cells)} |"
