"""The search for each method's knob: every setting's outcome on the validation problems, and the one that is chosen.

The jobs of benchmarks/lab/search.yaml are called METHOD or METHOD.FIELD=VALUE; the file of jobs has one seed.

    python -m benchmarks.lab.knob_search     # the chosen settings, as files of jobs

writes benchmarks/lab/main.yaml, every method, and benchmarks/lab/finalists.yaml, PAEC's family and the ten best others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from benchmarks.lab.records import BASELINE, PAEC, Runs, levels, means, outcomes, read, where_and_when
from data_prep.files import atomic_write
from recipe.paec.analyse.entropy_change import correlation, ranks
from recipe.paec.common.repository import REPOSITORY

HERE = Path(__file__).parent
JOBS = HERE / "search.yaml"
RECORDS = REPOSITORY / "benchmarks" / "results" / "lab" / "search"
BEST = 10
"""Methods beside PAEC's family that are run with more seeds."""
HEADER = """# {what}
# Written by python -m benchmarks.lab.knob_search; paec lab sweep benchmarks/lab/{file}
all: [steps={steps}, held_out=true]
seeds: {seeds}
jobs:
"""


def method_of(name: str) -> str:
    """`paec` of `paec.rho_min=0.7`."""
    return name.partition(".")[0]


def settings_of(jobs: Sequence[str]) -> dict[str, list[str]]:
    """Method -> the names of its jobs; the baseline first, then by name, the jobs in their order."""
    found: dict[str, list[str]] = {}
    for name in sorted(jobs, key=lambda name: (method_of(name) != BASELINE, method_of(name))):
        found.setdefault(method_of(name), []).append(name)
    return found


def volume(one: Runs) -> float:
    """What chooses: the hypervolume of accuracy and pass@32, the mean over seeds; equal ones are equal floats."""
    return round(float(outcomes(one.correct, one.distinct)["pass@32"].mean()), 12)


def chosen(runs: Mapping[str, Runs], jobs: Sequence[str]) -> dict[str, str]:
    """Method -> the name of its job with the largest hypervolume, the first of equal ones; methods run completely."""
    return {
        method: max(names, key=lambda name: volume(runs[name]))
        for method, names in settings_of(jobs).items()
        if all(name in runs for name in names)
    }


def what_it_takes(runs: Mapping[str, Runs], jobs: Sequence[str]) -> str:
    """Which of a method's values the search tends to take, and why; "" before a method with several was searched.

    Methods whose values all trained alike are not counted: nothing was chosen there.
    """
    best = chosen(runs, jobs)
    several = {m: names for m, names in settings_of(jobs).items() if m in best and len(names) > 1}
    several = {m: names for m, names in several.items() if not trained_alike([runs[name] for name in names])}
    if not several:
        return ""
    entropy = {name: one.entropy[:, -1].mean() for name, one in runs.items()}
    weakest = sum(best[m] == min(names, key=entropy.__getitem__) for m, names in several.items())
    ends = [(volume(of), *(level.mean() for level in levels(of).values())) for of in runs.values()]
    ranked = ranks(np.array(ends).T)
    with_what = dict(zip(levels(next(iter(runs.values()))), correlation(ranked[0], ranked[1:]), strict=True))
    said = [f"{with_what[name]:+.2f} with {name}" for name in ("accuracy", "pass@32", "token entropy")]
    return (
        f"in {weakest} of {len(several)} methods whose values differ, the value taken is the one whose training "
        "ends at the lowest token entropy. Over all runs, the rank correlation of the hypervolume with what a run "
        f"ends at is {', '.join(said)}: so few steps choose by accuracy, and hardly see what pass@32 loses."
    )


def trained_alike(runs: Sequence[Runs]) -> bool:
    """Whether all of them have the same correct and distinct responses at every validation."""
    first, *others = ((one.correct, one.distinct) for one in runs)
    return all(np.array_equal(ours, theirs) for other in others for ours, theirs in zip(first, other, strict=True))


def section(folder: Path, file: Path = JOBS) -> str:
    """The section of docs/results.md for the records of `folder` and the file of jobs; "" without records."""
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
    runs = {name: one for name, one in read(folder, "validation").items() if name in jobs}
    if not runs:
        return ""
    best, one = chosen(runs, [*jobs]), next(iter(runs.values()))
    missing = [f"`{method}`" for method in settings_of([*jobs]) if method not in best]
    lines = [
        "## The search",
        "",
        f"One run for each setting, seed {', '.join(map(str, one.seeds))}, {one.steps[-1]} steps, on the "
        f"{one.correct.shape[-1]} validation problems; `paec lab sweep benchmarks/lab/{file.name}`; "
        f"{where_and_when(runs.values())}. The value in bold is taken; the last four columns are its run at the last "
        "step, so of most methods the best of three runs, on the problems that chose it. One run a setting says which "
        "value a method gets, not which method is better: that is left to the main runs.",
        "",
        *(f"{words}\n" for words in (_what_is_noise(folder.parent / "main", one), _takes(runs, [*jobs])) if words),
        *([f"Not searched to the end yet: {', '.join(missing)}.", ""] if missing else []),
        "| | hypervolume of accuracy and pass@32, by value | accuracy | pass@32 | expressions | token entropy |",
        "|---|---|---|---|---|---|",
    ]
    for method, names in settings_of([*jobs]).items():
        if method in best:
            lines.append(_row(method, names, best[method], runs))
    return "\n".join(lines)


def _takes(runs: Mapping[str, Runs], jobs: Sequence[str]) -> str:
    said = what_it_takes(runs, jobs)
    return said and f"What it takes: {said}"


def _what_is_noise(folder: Path, like: Runs) -> str:
    """GRPO's own hypervolumes with other seeds up to the same step; "" without such runs."""
    grpo = read(folder, "validation").get(BASELINE)
    if grpo is None or not np.isin(like.steps, grpo.steps).all():
        return ""
    upto = np.isin(grpo.steps, like.steps)
    found = outcomes(grpo.correct[:, upto], grpo.distinct[:, upto])["pass@32"]
    return (
        f"GRPO with seeds {', '.join(map(str, grpo.seeds))} has {', '.join(f'{value:.4f}' for value in found)} on "
        "these problems: differences of that size say nothing."
    )


def _row(method: str, names: Sequence[str], taken: str, runs: Mapping[str, Runs]) -> str:
    knob = names[0].removeprefix(f"{method}.").partition("=")[0]
    alike = len(names) > 1 and trained_alike([runs[name] for name in names])
    tried = []
    for name in names:
        text = f"{volume(runs[name]):.4f}"
        if name != method:
            text = f"{name.partition('=')[2]}: {text}"
        tried.append(f"**{text}**" if name == taken and len(names) > 1 and not alike else text)
    if alike:
        tried.append("no effect: the runs are equal")
    label = f"`{method}`" if names == [method] else f"`{method}`, `{knob}`"
    return f"| {label} | {' · '.join(tried)} | " + " | ".join(means(runs[taken])) + " |"


def finalists(runs: Mapping[str, Runs], jobs: Sequence[str]) -> list[str]:
    """The baseline, PAEC's family, and the BEST others by the hypervolume of their chosen setting, the first of equal
    ones: methods."""
    best = chosen(runs, jobs)
    methods = [method for method in dict.fromkeys(map(method_of, jobs)) if method in best]
    family = [method for method in methods if method.startswith(PAEC)]
    others = [method for method in methods if method != BASELINE and method not in family]
    return [BASELINE, *family, *sorted(others, key=lambda method: -volume(runs[best[method]]))[:BEST]]


def files_of_jobs(runs: Mapping[str, Runs], jobs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Name of a file of jobs -> its text; every method's chosen setting, main.yaml's in the order of the search."""
    best, methods = chosen(runs, [*jobs]), [*dict.fromkeys(map(method_of, jobs))]

    def text(file: str, what: str, steps: int, seeds: list[int], methods: Sequence[str]) -> str:
        taken = {best[method]: list(jobs[best[method]]) for method in methods}
        lines = [f"  {name}: {yaml.safe_dump(of, default_flow_style=True, width=1000)}" for name, of in taken.items()]
        return HEADER.format(file=file, what=what, steps=steps, seeds=seeds) + "".join(lines)

    every = "Main runs of docs/results.md: each method at the value that the search chose, the test problems measured."
    longer = "Finalists of docs/results.md: PAEC's family and the other methods with the largest hypervolumes."
    return {
        "main.yaml": text("main.yaml", every, 200, [1, 2, 3], methods),
        "finalists.yaml": text("finalists.yaml", longer, 300, [1, 2, 3, 4, 5], finalists(runs, [*jobs])),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Writes the files of jobs that follow from the search's records.")
    parser.add_argument("--records", type=Path, default=RECORDS, help="records of paec lab sweep search.yaml")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of main.yaml and finalists.yaml")
    options = parser.parse_args(arguments)
    jobs = yaml.safe_load(JOBS.read_text(encoding="utf-8"))["jobs"]
    runs = read(options.records, "validation")
    missing = [name for name in jobs if name not in runs]
    if missing:
        print(
            f"error: {options.records} lacks {len(missing)} of {len(jobs)} runs, the first is {missing[0]}: "
            "paec lab sweep benchmarks/lab/search.yaml continues",
            file=sys.stderr,
        )
        return 1
    for name, text in files_of_jobs(runs, jobs).items():
        with atomic_write(options.output / name) as partial:
            partial.write_text(text, encoding="utf-8")
        print(options.output / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
