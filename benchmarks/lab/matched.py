"""The same entropy by other means: which strength of each rival holds the token entropy that PAEC holds.

Jobs of benchmarks/lab/matched_entropy.yaml, METHOD.FIELD=VALUE; PAEC's runs are those of countdown_four.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from benchmarks.lab.knob_search import HERE, method_of, settings_of
from benchmarks.lab.other_tasks import SPLIT
from benchmarks.lab.records import PAEC, Runs, means, read, where_and_when

FILE = "matched_entropy"


def taken(runs: Mapping[str, Runs], paec: Runs) -> dict[str, str]:
    """Method -> the name of its job whose token entropy at its last step is nearest to PAEC's mean at that step."""
    step = next(iter(runs.values())).steps[-1]
    level = _at(paec, step)
    return {
        method: min(names, key=lambda name: abs(_at(runs[name], step) - level))
        for method, names in settings_of([*runs]).items()
    }


def _at(one: Runs, step: int) -> float:
    """Mean token entropy of the validation at a step, nats."""
    return float(one.entropy[:, one.steps == step].mean())


def section(folder: Path, four: Path, file: Path = HERE / f"{FILE}.yaml") -> str:
    """The section of docs/results.md for the records of `folder` and of countdown_four; "" without either.

    A method's strength is taken once all of those in the file of jobs were run.
    """
    runs, paec = read(folder, SPLIT), read(four, SPLIT).get(PAEC)
    missing = [name for name in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"] if name not in runs]
    if not runs or paec is None:
        return ""
    one = next(iter(runs.values()))
    under_way = {*map(method_of, missing)}
    best = {method: name for method, name in taken(runs, paec).items() if method not in under_way}
    step = one.steps[-1]
    lines = [
        "## The same entropy by other means",
        "",
        f"Countdown with four numbers, seed {', '.join(map(str, one.seeds))}, {step} steps, "
        f"`paec lab sweep benchmarks/lab/{FILE}.yaml`; {where_and_when(runs.values())}. Token entropy decides alone: "
        f"in bold, of each method, the strength nearest to PAEC's {_at(paec, step):.3f} (seeds "
        f"{', '.join(map(str, paec.seeds))}), once all listed strengths of the method were run. Runs "
        "with three seeds are in [A longer search](#a-longer-search).",
        "",
        *([f"Not run yet: {', '.join(f'`{name}`' for name in missing)}.", ""] if missing else []),
        f"| | {' | '.join(f'token entropy at step {k}' for k in one.steps)} | accuracy | pass@32 | expressions |",
        f"|---|{'---|' * (len(one.steps) + 3)}",
    ]
    for name, of in {PAEC: paec, **runs}.items():
        upto = np.isin(of.steps, one.steps)
        end = np.flatnonzero(upto)[-1]
        cells = [f"{value:.3f}" for value in of.entropy[:, upto].mean(0)]
        cells += means(of, end)[:-1]  # the token entropy has its own columns
        label = f"**`{name}`**" if name in best.values() else f"`{name}`"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)
