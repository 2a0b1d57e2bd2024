"""The search for each method's knob: every setting's outcome on the validation problems, and the one that is chosen.

The jobs of benchmarks/lab/search.yaml are called METHOD or METHOD.FIELD=VALUE; the file of jobs has one seed.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.lab.records import Runs, accuracy, outcomes, read, solved, where_and_when


def method_of(name: str) -> str:
    """`paec` of `paec.rho_min=0.7`."""
    return name.partition(".")[0]


def chosen(runs: dict[str, Runs]) -> dict[str, str]:
    """Method -> the name of its run with the largest hypervolume (accuracy, pass@32); the first of equal ones."""
    best: dict[str, tuple[float, str]] = {}
    for name, one in runs.items():
        value = float(outcomes(one.correct, one.distinct)["pass@32"].mean())
        if method_of(name) not in best or value > best[method_of(name)][0]:
            best[method_of(name)] = (value, name)
    return {method: name for method, (_, name) in best.items()}


def section(folder: Path) -> str:
    """The section of docs/results.md; "" without records."""
    runs = read(folder, "validation")
    if not runs:
        return ""
    best = chosen(runs)
    one = next(iter(runs.values()))
    lines = [
        "## The search",
        "",
        f"One run for each setting, seed {', '.join(map(str, one.seeds))}, {one.steps[-1]} steps, on the "
        f"{one.correct.shape[-1]} validation problems; `paec lab sweep benchmarks/lab/search.yaml`; "
        f"{where_and_when(runs.values())}. The setting in bold is taken. A method whose settings are not all "
        "here is not searched to the end yet.",
        "",
        "| | hypervolume, pass@32 | hypervolume, distinct | accuracy | pass@32 | token entropy |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(runs, key=lambda name: (method_of(name) != "none", method_of(name), list(runs).index(name))):
        r, found = runs[name], outcomes(runs[name].correct, runs[name].distinct)
        cells = [f"{found['pass@32'].mean():.4f}", f"{found['distinct'].mean():.3f}"]
        last = (accuracy(r.correct)[:, -1], solved(r.correct)[:, -1], r.entropy[:, -1])
        cells += [f"{value.mean():.3f}" for value in last]
        label = f"**`{name}`**" if best[method_of(name)] == name else f"`{name}`"
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
