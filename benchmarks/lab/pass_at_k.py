"""pass@k for every k: does training solve more problems, or only need fewer tries for those that it solved before?

Of every k up to SAMPLES the unbiased estimate, from the same responses as everything else. Where training lost ways to
a solution, the policy before training has the higher pass@k from some k on: the more was lost, the smaller that k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.lab.comparison import DRAWS, corrected, in_bold, mean_gap
from benchmarks.lab.figures import Panel, draw_pass_at_k
from benchmarks.lab.records import BASELINE, PROBLEMS, SAMPLES, Runs, comparable, read, where_and_when
from recipe.paec.scoring.estimators import ROUNDING, Difference, pass_at_every_k, powers_of_two

AT_EVERY_K = np.array([pass_at_every_k(SAMPLES, c) for c in range(SAMPLES + 1)])
"""[SAMPLES + 1, SAMPLES]: pass@1, pass@2, ... of a problem with 0, 1, ... correct responses."""
SHOWN = powers_of_two(SAMPLES)
FIGURE = "results_pass_at_k.svg"


@dataclass(frozen=True)
class Setting:
    """Records whose last step has a table and a panel of the figure."""

    folder: str
    words: str
    split: str
    panel: bool = True
    """Whether the figure has a panel of it."""


SETTINGS = (
    Setting("defaults", "three numbers", "held_out"),
    Setting("defaults", "three numbers", "validation", panel=False),
    Setting("llama", "a Llama, three numbers", "held_out", panel=False),
    Setting("long", "three numbers", "held_out"),
    Setting("countdown_four", "four numbers", "validation"),
    Setting("countdown_four_kept", "four numbers, another warm start", "validation", panel=False),
)


def title(setting: Setting, runs: Mapping[str, Runs]) -> str:
    """`four numbers, 1,000 steps`."""
    return f"{setting.words}, {runs[BASELINE].steps[-1]:,} steps"


def full_title(setting: Setting, runs: Mapping[str, Runs]) -> str:
    """`four numbers, 1,000 steps, 100 validation problems`."""
    return f"{title(setting, runs)}, {problems(setting, runs)}"


def problems(setting: Setting, runs: Mapping[str, Runs]) -> str:
    """`100 validation problems`."""
    return f"{runs[BASELINE].correct.shape[-1]} {PROBLEMS[setting.split]} problems"


def complete(folder: Path) -> dict[Setting, dict[str, Runs]]:
    """The `comparable` runs of SETTINGS that have several methods and seeds."""
    found = {setting: comparable(read(folder / setting.folder, setting.split)) for setting in SETTINGS}
    return {setting: runs for setting, runs in found.items() if len(runs) > 1 and len(runs[BASELINE].seeds) > 1}


def at_every_k(runs: Runs, validation: int) -> np.ndarray:
    """[S, P, SAMPLES] pass@1, pass@2, ... of every seed and problem at a validation."""
    return AT_EVERY_K[runs.correct[:, validation]]


def before_training(baseline: Runs) -> np.ndarray:
    """[SAMPLES] pass@1, pass@2, ... of the policy that all trainings start from; the mean of the seeds' validations."""
    return at_every_k(baseline, 0).mean((0, 1))


def overtaken(start: np.ndarray, trained: np.ndarray) -> int | None:
    """The k from which on pass@k was higher before training, of two curves [k]; None: it is not at the largest k."""
    not_lost = np.flatnonzero(start <= trained + ROUNDING)
    k = int(not_lost[-1]) + 2 if not_lost.size else 1
    return k if k <= len(start) else None


def crossing(runs: Mapping[str, Runs], name: str) -> int | None:
    """`overtaken` of a method's mean over seeds at the last step."""
    return overtaken(before_training(runs[BASELINE]), at_every_k(runs[name], -1).mean((0, 1)))


def differences(runs: Runs, baseline: Runs, draws: int = DRAWS) -> dict[int, Difference]:
    """pass@k minus the baseline's at the last step, for each k of SHOWN; the bootstrap over seeds and problems."""
    gaps = at_every_k(runs, -1) - at_every_k(baseline, -1)
    return {k: mean_gap(gaps[..., k - 1], draws) for k in SHOWN}


def section(folder: Path, draws: int = DRAWS, figures: Path | None = None) -> str:
    """The section of docs/results.md; "" without records of SETTINGS.

    The figure goes to the folder `figures`, if one is given.
    """
    found = complete(folder)
    if not any(setting.panel for setting in found):
        return ""
    if figures is not None:
        shown = {setting: runs for setting, runs in found.items() if setting.panel}
        panels = {f"{title(of, runs)}\n{problems(of, runs)}": _panel(runs) for of, runs in shown.items()}
        draw_pass_at_k(panels, figures / FIGURE)
    every = [one for runs in found.values() for one in runs.values()]
    lines = [
        "## More tries",
        "",
        f"pass@k of every k, from the {SAMPLES} responses of the last validation; `python -m benchmarks.lab.results`; "
        f"{where_and_when(every)}. Training raises pass@1; from some k on the policy before training solves more "
        "problems within k tries. The last column has that k: of the mean over seeds, and of each seed, against the "
        "same curve before training, the mean of the seeds' first validations. It has no interval; the differences do. "
        "Below each table the same minus GRPO, 95 % intervals, bold what differs after Holm's correction for the "
        "number of methods.",
        "",
        f"![pass@k over k, before training and after it]({FIGURE})",
    ]
    for setting, runs in found.items():
        heading = full_title(setting, runs)
        lines += ["", f"### {heading[0].upper()}{heading[1:]}", "", *_levels(runs), "", *_gains(runs, draws)]
    return "\n".join(lines)


def _panel(runs: Mapping[str, Runs]) -> Panel:
    """The curve before training; every method's at the end, and where the former is higher."""
    curves = {name: (at_every_k(one, -1).mean((0, 1)), crossing(runs, name)) for name, one in runs.items()}
    return before_training(runs[BASELINE]), curves


def _levels(runs: Mapping[str, Runs]) -> list[str]:
    start = before_training(runs[BASELINE])
    columns = [k - 1 for k in SHOWN]
    lines = [
        f"| | {' | '.join(f'pass@{k}' for k in SHOWN)} | higher before training from k = |",
        f"|---|{'---|' * (len(SHOWN) + 1)}",
        f"| before training | {' | '.join(f'{value:.3f}' for value in start[columns])} | |",
    ]
    for name, one in runs.items():
        of_seeds = at_every_k(one, -1).mean(1)
        whole = of_seeds.mean(0)
        each = ", ".join(in_words(overtaken(start, of)) for of in of_seeds)
        cells = [f"{value:.3f}" for value in whole[columns]]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {in_words(overtaken(start, whole))} ({each}) |")
    return lines


def in_words(k: int | None) -> str:
    """`6`, or `above 32`."""
    return f"above {SAMPLES}" if k is None else str(k)


def _gains(runs: Mapping[str, Runs], draws: int) -> list[str]:
    gained = {name: differences(one, runs[BASELINE], draws) for name, one in runs.items() if name != BASELINE}
    p = {k: corrected({name: of[k].p for name, of in gained.items()}) for k in SHOWN}
    lines = [f"| minus GRPO | {' | '.join(f'pass@{k}' for k in SHOWN)} |", f"|---|{'---|' * len(SHOWN)}"]
    for name, of in gained.items():
        cells = [in_bold(of[k], 3, p[k][name]) for k in SHOWN]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines
