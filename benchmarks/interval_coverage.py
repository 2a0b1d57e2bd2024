"""How often do the tests and intervals of `paec compare` say what is so? `python -m benchmarks.interval_coverage`

Two methods, trained with S seeds each and scored on P problems with 16 samples. A problem has a difficulty; a method is
better at some problems and worse at others, by 10 points, but not on average over all problems that there might be; a
training has luck, 0 or 2 points on all problems and 5 on each (standard deviations of the accuracy). So the true
difference is 0. Counted are the simulated comparisons whose 95 % interval has it.
Writes benchmarks/results/interval_coverage.json, which the table of docs/comparing.md shows. `--trials 20` prints its
counts and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from data_prep.files import atomic_write
from data_prep.progress import with_progress
from recipe.paec.scoring.estimators import Estimate, paired_bootstrap, t_interval
from recipe.paec.scoring.two_level import two_level_difference

FILE = Path(__file__).parent / "results" / "interval_coverage.json"
SAMPLES = 16
RESAMPLES = 1000
TRIALS = 500
SEEDS, PROBLEMS, LUCK = (2, 3, 5, 10), (30, 200), (0.0, 0.02)
METHOD, OWN = 0.10, 0.05
"""Standard deviations of what is particular to a method, and to a training, on one problem; in accuracy."""


def scored(rng: np.random.Generator, difficulty: np.ndarray, seeds: int, luck: float) -> np.ndarray:
    """Accuracies [seeds, P] of trainings of one method: difficulty [P] on average, up to the ends of [0, 1]."""
    ability = difficulty + rng.normal(0, METHOD, len(difficulty))
    chance = ability + rng.normal(0, luck, (seeds, 1)) + rng.normal(0, OWN, (seeds, len(difficulty)))
    return rng.binomial(SAMPLES, np.clip(chance, 0, 1)) / SAMPLES


def intervals(a: np.ndarray, b: np.ndarray, trial: int) -> dict[str, Estimate]:
    """The ways to compare two methods [S, P], by name."""
    return {
        "problems": paired_bootstrap((a.mean(0), b.mean(0)), resamples=RESAMPLES, seed=trial),
        "seeds and problems": two_level_difference([(a, b)], False, resamples=RESAMPLES, seed=trial),
        "shared seeds and problems": two_level_difference([(a, b)], True, resamples=RESAMPLES, seed=trial),
        "t over pairs of seeds": t_interval((a - b).mean(1)),
    }


def measure(seeds: int, problems: int, luck: float, trials: int) -> dict[str, int]:
    """In how many trials each interval has the true difference, 0."""
    rng = np.random.default_rng((seeds, problems, round(1000 * luck)))
    covered: dict[str, int] = {}
    for trial in range(trials):
        difficulty = rng.beta(0.8, 1.2, size=problems) * 0.6 + 0.2  # far enough from 0 and 1 for the others
        a, b = (scored(rng, difficulty, seeds, luck) for _ in range(2))
        for name, found in intervals(a, b, trial).items():
            covered[name] = covered.get(name, 0) + (found.low <= 0 <= found.high)
    return {name: int(count) for name, count in covered.items()}


def table(record: dict) -> list[str]:
    """The table of docs/comparing.md: how often, in percent of the trials, each interval had the true difference."""
    names = list(record["cases"][0]["covered"])
    lines = [
        "| training luck | problems | seeds of each | " + " | ".join(names) + " |",
        "|---" * (3 + len(names)) + "|",
    ]
    for case in record["cases"]:
        cells = [f"{100 * case['covered'][name] / record['about']['trials']:.0f}" for name in names]
        about = [f"{100 * case['luck']:.0f} points", str(case["problems"]), str(case["seeds"])]
        lines.append("| " + " | ".join([*about, *cells]) + " |")
    return lines


def main() -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Coverage of the intervals of paec compare on simulated benchmarks.")
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"simulated comparisons (default {TRIALS})")
    trials = parser.parse_args().trials
    cases = [(s, p, luck) for luck in LUCK for p in PROBLEMS for s in SEEDS]
    lines = []
    for seeds, problems, luck in with_progress(cases, label="cases"):
        lines.append(
            {"seeds": seeds, "problems": problems, "luck": luck, "covered": measure(seeds, problems, luck, trials)}
        )
        print(json.dumps(lines[-1]), flush=True)
    if trials == TRIALS:
        about = {"trials": trials, "resamples": RESAMPLES, "samples": SAMPLES, "method": METHOD, "own": OWN}
        rows = ",\n".join(map(json.dumps, lines))
        with atomic_write(FILE) as partial:
            partial.write_text(f'{{"about": {json.dumps(about)},\n"cases": [\n{rows}\n]}}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
