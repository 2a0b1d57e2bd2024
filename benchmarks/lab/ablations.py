"""What each part of PAEC does: its shipped defaults with one decision changed, beside the defaults themselves.

The jobs of benchmarks/lab/ablations.yaml are called FIELD=VALUE; GRPO and PAEC are those of the shipped defaults, which
have the same steps and seeds.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.lab.comparison import DRAWS, differences, in_bold
from benchmarks.lab.records import BASELINE, PAEC, Runs, means, over_training, read, where_and_when

HEADING = "## What each part does"
SHOWN = (("entropy", 3), ("accuracy", 3), ("last expressions", 2), ("expressions", 3))
"""The differences of the second table, with their decimals."""


def section(folder: Path, defaults: Path, draws: int = DRAWS) -> str:
    """The section of docs/results.md; "" without records."""
    runs, shipped = read(folder), read(defaults)
    if not runs or PAEC not in shipped or BASELINE not in shipped:
        return ""
    paec = shipped[PAEC]
    complete = {name: one for name, one in runs.items() if one.matches(paec)}
    missing = [f"`{name}` ({', '.join(map(str, one.seeds))})" for name, one in runs.items() if name not in complete]
    lines = [HEADING, ""]
    if missing:
        lines += [f"Not below, because only some of the seeds (in brackets) were run: {', '.join(missing)}.", ""]
    if not complete:
        return "\n".join(lines[:-1])
    lines += [
        f"PAEC as it is shipped with one decision changed: seeds {', '.join(map(str, paec.seeds))}, {paec.steps[-1]} "
        f"steps, the {paec.correct.shape[-1]} test problems; `paec lab sweep benchmarks/lab/ablations.yaml`; "
        f"{where_and_when(complete.values())}. GRPO and PAEC are the shipped defaults' "
        f"runs (records `{defaults.name}`).",
        "",
        "Means over the seeds at the last step; over the whole run, the share of steps in which the penalty acted, and "
        "the mask's mass as a share of the tokens:",
        "",
        "| | accuracy | pass@32 | expressions | token entropy | penalty acts | mask's mass |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, one) for name, one in {"GRPO": shipped[BASELINE], "PAEC": paec, **complete}.items()),
        "",
        "Minus PAEC, with 95 % intervals, not corrected for the number of lines; bold where 0 is outside:",
        "",
        "| | token entropy | accuracy | expressions | hypervolume, expressions |",
        "|---|---|---|---|---|",
    ]
    for name, one in {"GRPO": shipped[BASELINE], **complete}.items():
        found = differences(one, paec, draws)
        cells = [in_bold(found[key], digits, found[key].p) for key, digits in SHOWN]
        lines.append(f"| {_label(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _label(name: str) -> str:
    return f"`{name}`" if "=" in name else name


def _row(name: str, one: Runs) -> str:
    cells = means(one)
    for key in ("actor/paec/penalty_active", "actor/paec/mask_mass"):
        value = over_training(one, key)
        cells.append("-" if value is None else f"{value:.2f}")
    return f"| {_label(name)} | " + " | ".join(cells) + " |"
