"""Tables and figure of docs/results.md, from the records of the laboratory: `python -m benchmarks.lab.results`.

Reads benchmarks/lab/protocol.md and the records of `paec lab sweep` in benchmarks/results/lab: `defaults/`, `long/`,
`llama/`, `ablations/`, `agreement/`, `search/` and `main/`, each made from the file of jobs of that name; the records
of `benchmarks.lab.why`; and the pipeline's runs in benchmarks/results/pipeline. Writes docs/results.md and its figures.

A number is the mean over seeds, with the seeds' own values beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab import ablations, pipeline, search, why
from benchmarks.lab.records import (
    BASELINE,
    REFERENCE,
    SAMPLES,
    Runs,
    accuracy,
    gap_at_equal_accuracy,
    interval,
    outcomes,
    over_problems,
    points,
    read,
    solved,
    where_and_when,
)
from data_prep.files import atomic_write
from recipe.paec.scoring.estimators import LEVEL, Difference
from recipe.paec.scoring.two_level import Statistic, crossed_bootstrap

ROOT = Path(__file__).parents[2]
RECORDS, PROTOCOL = ROOT / "benchmarks" / "results" / "lab", Path(__file__).parent / "protocol.md"
PAGE, FIGURE = "results.md", "results.svg"
DRAWS = 10_000
SECTIONS = {
    "quick": "## The quick version",
    "defaults": "## The shipped defaults",
    "long": "## Long runs",
    "llama": "## Another model",
    "main": "## Main runs",
}
"""Folder of records -> heading; the file of jobs has the folder's name."""
MOST_CURVES = 6
"""Methods whose curves can be told apart in one figure."""
COLORS = {"better": "C2", "no difference shown": "0.55", "worse": "C3", "one seed: no interval": "0.8"}
"""Of what `in_words` says."""
CLAIMS = (
    ("Keeps the entropy of the policy above GRPO's", "entropy", "token entropy at the last step"),
    ("Is more accurate than GRPO", "accuracy", "accuracy at the last step"),
    ("Keeps more ways to a solution than GRPO", "last distinct", "distinct correct of 32 at the last step"),
    ("Solves more problems within 32 tries than GRPO", "last pass@32", "pass@32 at the last step"),
    ("Keeps more ways to a solution at the accuracy of GRPO", "equal distinct", "distinct correct at equal accuracy"),
    ("Solves more problems within 32 tries at its accuracy", "equal pass@32", "pass@32 at equal accuracy"),
    ("Gives more than stopping GRPO earlier", "pass@32", "hypervolume of accuracy and pass@32"),
    ("The same for the ways to a solution", "distinct", "hypervolume of accuracy and distinct correct"),
)
"""What is said of PAEC, the difference to GRPO that it means, and that difference in words."""


def differences(runs: Runs, baseline: Runs, draws: int = DRAWS, seed: int = 0) -> dict[str, Difference]:
    """Each outcome minus the baseline's, estimate and 95 % interval; and so for the values at the last step.

    The two-level bootstrap of `paec compare` (`crossed_bootstrap`) over the seeds and the problems that both methods
    have. With a single common seed only the problems are resampled: the spread between trainings is not in it then. The
    entropy, which is a mean over all responses, is resampled by seeds alone.
    """
    common = [s for s in runs.seeds if s in baseline.seeds]
    sides = []
    for one in (runs, baseline):
        rows = [one.seeds.index(s) for s in common]
        sides.append((one.correct[rows], one.distinct[rows]))
    entropy = [one.entropy[[one.seeds.index(s) for s in common], -1] for one in (runs, baseline)]

    def gaps(name: str, shares: np.ndarray) -> np.ndarray:
        """[B, S] of every seed, the problems weighted by shares [B, P]."""
        if name.startswith("equal "):
            curves = (points(*side, shares)[name.removeprefix("equal ")] for side in sides)
            return gap_at_equal_accuracy(*curves)
        one, other = (_value(name, correct, distinct, shares) for correct, distinct in sides)
        return one - other

    def statistic(name: str) -> Statistic:
        if len(common) == 1:
            return lambda problems: gaps(name, problems)[:, 0]
        return lambda seeds, problems: (seeds * gaps(name, problems)).sum(-1)

    sizes = [runs.correct.shape[-1]] if len(common) == 1 else [len(common), runs.correct.shape[-1]]
    names = (*REFERENCE, *(f"equal {name}" for name in REFERENCE), "accuracy", "last pass@32", "last distinct")
    found = {name: crossed_bootstrap(statistic(name), sizes, resamples=draws, seed=seed) for name in names}
    found["entropy"] = crossed_bootstrap(
        lambda seeds: seeds @ (entropy[0] - entropy[1]), [len(common)], resamples=draws, seed=seed
    )
    return found


def _value(name: str, correct: np.ndarray, distinct: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """[B, S] of one side of a difference, by its name."""
    if name in REFERENCE:
        return outcomes(correct, distinct, shares)[name]
    last = {
        "accuracy": lambda: accuracy(correct[:, -1], shares),
        "last pass@32": lambda: solved(correct[:, -1], shares),
        "last distinct": lambda: over_problems(distinct[:, -1], shares),
    }
    return last[name]()


# ---- the page --------------------------------------------------------------------------------------------------------


def values(of: np.ndarray, digits: int = 3) -> str:
    """Mean over seeds, and every seed."""
    return f"{of.mean():.{digits}f} ({', '.join(f'{v:.{digits}f}' for v in of)})"


def last_step(runs: dict[str, Runs]) -> list[str]:
    """The table of the last validation."""
    lines = ["| | accuracy | pass@32 | distinct | token entropy |", "|---|---|---|---|---|"]
    for name, one in runs.items():
        cells = [accuracy(one.correct)[:, -1], solved(one.correct)[:, -1], one.distinct.mean(-1)[:, -1]]
        row = [values(cells[0]), values(cells[1]), values(cells[2], 2), values(one.entropy[:, -1])]
        lines.append(f"| `{name}` | " + " | ".join(row) + " |")
    return lines


def frontier(runs: dict[str, Runs], gained: dict[str, dict[str, Difference]]) -> list[str]:
    """The table of the hypervolumes; `gained`: the `differences` of every method but the baseline."""
    said = {key: corrected({name: of[key].p for name, of in gained.items()}) for key in REFERENCE}
    lines = [
        "| | hypervolume, pass@32 | minus GRPO's | | hypervolume, distinct | minus GRPO's | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in runs.items():
        found = outcomes(one.correct, one.distinct)
        cells = []
        for key, digits in (("pass@32", 4), ("distinct", 3)):
            cells.append(values(found[key], digits))
            if name in gained:
                cells += [interval(gained[name][key], digits), in_words(gained[name][key], said[key][name])]
            else:
                cells += ["", ""]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return lines


def corrected(p: Mapping[str, float | None]) -> dict[str, float | None]:
    """p values by name, corrected for their number by Holm's method (1979); None stays None, and is not counted."""
    known = sorted((value, name) for name, value in p.items() if value is not None)
    found: dict[str, float | None] = dict.fromkeys(p)
    largest = 0.0
    for place, (value, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * value))
        found[name] = largest
    return found


def in_words(difference: Difference, p: float | None) -> str:
    """What a corrected p value says: better, worse or no difference shown."""
    if p is None:
        return "one seed: no interval"
    return ("better" if difference.value > 0 else "worse") if LEVEL + p < 1 else "no difference shown"


def equal_accuracy(gained: dict[str, dict[str, Difference]]) -> list[str]:
    """The table of the differences at equal accuracy."""
    said = {key: corrected({name: of[f"equal {key}"].p for name, of in gained.items()}) for key in REFERENCE}
    lines = [
        "At equal accuracy, the mean over the accuracies that both reach, minus GRPO's:",
        "",
        "| | pass@32 | | distinct | |",
        "|---|---|---|---|---|",
    ]
    for name, of in gained.items():
        cells = []
        for key, digits in (("pass@32", 3), ("distinct", 2)):
            found = of[f"equal {key}"]
            cells += [interval(found, digits), in_words(found, said[key][name])]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return lines


def dominated(one: Runs, baseline: Runs) -> dict[str, int]:
    """In how many common seeds every checkpoint of the baseline has one of `one` that is at least as good in both.

    Both are accuracy and, by its name, pass@32 or distinct correct answers. The step before training is left out: it is
    the same policy.
    """
    ours, theirs = (points(runs.correct, runs.distinct) for runs in (one, baseline))
    found = dict.fromkeys(REFERENCE, 0)
    for name in REFERENCE:
        for seed in set(one.seeds) & set(baseline.seeds):
            x, y = (value[one.seeds.index(seed), 1:, None] for value in ours[name])
            its_x, its_y = (value[baseline.seeds.index(seed), None, 1:] for value in theirs[name])
            found[name] += bool(((x >= its_x) & (y >= its_y)).any(0).all())
    return found


def domination(runs: dict[str, Runs]) -> list[str]:
    """In how many seeds each method dominates all of the baseline's curve."""
    baseline = runs[BASELINE]
    lines = [
        "Does a method dominate GRPO, wherever that is stopped? Seeds in which every checkpoint of GRPO has one of the "
        "method that is at least as good in both:",
        "",
        "| | accuracy and pass@32 | accuracy and distinct |",
        "|---|---|---|",
    ]
    for name, one in runs.items():
        if name != BASELINE:
            common = sum(s in baseline.seeds for s in one.seeds)
            found = dominated(one, baseline)
            lines.append(f"| `{name}` | {found['pass@32']} of {common} | {found['distinct']} of {common} |")
    return lines


def verdict(low: float | None, high: float | None) -> str:
    """What an interval of a difference says about the claim that it is above 0."""
    if low is None or high is None:
        return "one seed: no interval"
    return "confirmed" if low > 0 else "the opposite" if high < 0 else "not confirmed"


def claims(found: dict[str, Difference]) -> list[str]:
    """What is said of PAEC beside what PAEC's shipped defaults did: its `differences`."""
    lines = [
        "What the paper says of PAEC, as its shipped defaults did it here, minus GRPO (95 % intervals, not corrected "
        "for the number of lines):",
        "",
        "| claim | measured as | difference | |",
        "|---|---|---|---|",
    ]
    for claim, key, words in CLAIMS:
        of = found[key]
        lines.append(f"| {claim} | {words} | {interval(of, 3)} | {verdict(of.low, of.high)} |")
    return lines


def page(folder: Path, of_pipeline: Path | None = None, draws: int = DRAWS) -> str:
    """The text of docs/results.md: the protocol, and what the records of `folder` and of the pipeline make of it."""
    protocol = PROTOCOL.read_text(encoding="utf-8").rstrip("\n")
    quick, defaults, long, llama, main = (section(folder / name, draws) for name in SECTIONS)
    each_part = ablations.section(
        folder / "ablations", folder / "defaults", lambda one, other: differences(one, other, draws)
    )
    agreement = pipeline.agreement(folder / "agreement", of_pipeline, draws) if of_pipeline else ""
    found = why.section(folder / "why"), search.section(folder / "search")
    parts = [protocol, quick, defaults, each_part, found[0], long, llama, agreement, found[1], main]
    return "\n\n".join(part for part in parts if part) + "\n"


def section(folder: Path, draws: int = DRAWS) -> str:
    """The tables of a folder of records, once every method has been run with the same seeds; "" without records."""
    runs = read(folder)
    if not runs:
        return ""
    heading = SECTIONS[folder.name]
    if len({r.seeds for r in runs.values()}) != 1 or len(runs) == 1 or BASELINE not in runs:
        have = [f"`{name}` with seed {', '.join(map(str, r.seeds))}" for name, r in runs.items()]
        return f"{heading}\n\nRuns on record: {'; '.join(have)}. No table yet."
    one = runs[BASELINE]
    gained = {name: differences(r, one, draws) for name, r in runs.items() if name != BASELINE}
    first, last = one.steps[0], one.steps[-1]
    start = f"At step {first}, before any training: accuracy {accuracy(one.correct)[:, 0].mean():.3f}, pass@32 "
    start += (
        f"{solved(one.correct)[:, 0].mean():.3f}, distinct {one.distinct.mean(-1)[:, 0].mean():.2f}, token entropy "
    )
    start += f"{one.entropy[:, 0].mean():.3f}."
    lines = [
        heading,
        "",
        f"{one.correct.shape[-1]} test problems x {SAMPLES} responses, {len(one.seeds)} seeds (mean, and each seed), "
        f"{last} steps; `paec lab sweep benchmarks/lab/{folder.name}.yaml`, then `python -m benchmarks.lab.results`; "
        f"{where_and_when(runs.values())}.",
        "",
        f"![Accuracy against pass@32 and distinct answers at every validation; token entropy]({figure_of(folder)})",
        "",
        start,
        "",
        f"At step {last}:",
        "",
        *last_step(runs),
        "",
        f"The whole curve, which is what decides (steps {', '.join(map(str, one.steps))}; 95 % intervals"
        + (", one seed: without the spread between trainings" if len(one.seeds) == 1 else "")
        + "; the words are after Holm's correction for the number of methods):",
        "",
        *frontier(runs, gained),
        "",
        *equal_accuracy(gained),
        "",
        *domination(runs),
    ]
    if "paec" in gained:
        lines += ["", *claims(gained["paec"])]
    return "\n".join(lines)


def figure_of(folder: Path) -> str:
    """The name of a section's figure: results.svg, or results_main.svg."""
    return FIGURE if folder.name == "defaults" else f"results_{folder.name}.svg"


def draw(runs: dict[str, Runs], file: Path, draws: int = DRAWS) -> None:
    """The figure of a section: curves, or of more than MOST_CURVES methods their differences to the baseline."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "results", "font.size": 9, "axes.spines.top": False})
    pyplot.rcParams["axes.spines.right"] = False
    if len(runs) > MOST_CURVES:
        gained = {name: differences(one, runs[BASELINE], draws) for name, one in runs.items() if name != BASELINE}
        figure = _intervals(pyplot, gained)
    else:
        figure = _curves(pyplot, runs)
    with atomic_write(file) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _curves(pyplot: Any, runs: dict[str, Runs]) -> Any:
    """Frontiers, and entropy with the range of the seeds."""
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(10.5, 3.7), layout="constrained")
    for place, (name, one) in enumerate(runs.items()):
        color = f"C{place}"
        label = "GRPO" if name == BASELINE else f"GRPO + {name}"
        x = accuracy(one.correct).mean(0)
        for axis, y in ((left, solved(one.correct).mean(0)), (middle, one.distinct.mean(-1).mean(0))):
            axis.plot(x, y, "-o", color=color, markersize=3, linewidth=1, label=label)
            axis.plot(x[-1:], y[-1:], "o", color=color, markersize=6)
        right.fill_between(one.steps, one.entropy.min(0), one.entropy.max(0), color=color, alpha=0.15, linewidth=0)
        right.plot(one.steps, one.entropy.mean(0), color=color, linewidth=1.2, label=label)
    left.set(xlabel="accuracy", ylabel="pass@32")
    middle.set(xlabel="accuracy", ylabel="distinct correct of 32")
    right.set(xlabel="step", ylabel="token entropy, nats")
    figure.legend(*right.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    return figure


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
    axes[0].set_yticks(range(len(order)), [search.method_of(name) for name in order], fontsize=7.5)
    axes[0].set_ylim(-0.7, len(order) - 0.3)
    handles = [
        pyplot.Line2D([], [], color=color, marker="o", linewidth=1, markersize=4, label=words)
        for words, color in COLORS.items()
        if words in used
    ]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(handles))
    return figure


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Writes results.md and its figures from the laboratory's records.")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder with defaults/, search/ or main/")
    parser.add_argument("--pipeline", type=Path, help="folder of python -m benchmarks.lab.pipeline")
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    options = parser.parse_args(arguments)
    if not any(read(options.records / name) for name in (*SECTIONS, "ablations", "search")):
        print(f"error: {options.records} has no record: paec lab sweep makes them", file=sys.stderr)
        return 1
    of_pipeline = options.pipeline or (pipeline.RECORDS if options.records == RECORDS else None)
    found = page(options.records, of_pipeline)
    for name in SECTIONS:
        if figure_of(options.records / name) in found:
            draw(read(options.records / name), options.output / figure_of(options.records / name))
    options.output.mkdir(parents=True, exist_ok=True)
    with atomic_write(options.output / PAGE) as partial:
        partial.write_text(found, encoding="utf-8")
    print(options.output / PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
