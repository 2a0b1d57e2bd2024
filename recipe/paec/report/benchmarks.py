"""Evaluations in a report: scores on benchmarks, of one model or of the checkpoints of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recipe.paec.common.errors import UserError
from recipe.paec.compare.evaluations import CURVE_FILE, SCORES_FILE, Evaluation, read_curve_file, read_run
from recipe.paec.compare.palette import places
from recipe.paec.report.catalogue import PERCENT, Spec
from recipe.paec.report.charts import chart_of, series_of
from recipe.paec.report.facts import Fact
from recipe.paec.report.runs import Run
from recipe.paec.scoring.display import heading, in_papers_order, percent

NOTE = "Bands: 95 % intervals over the problems. Whether evaluations may be compared is what paec compare checks."


@dataclass(frozen=True)
class Scored:
    """The evaluations of one model, or of several checkpoints of a run."""

    name: str
    folder: Path
    steps: tuple[tuple[int | None, Evaluation], ...]
    """(training step, scores), in order; the step is None where it is not known."""

    @property
    def last(self) -> Evaluation:
        """The evaluation of the last step."""
        return self.steps[-1][1]


def is_evaluation(folder: Path) -> bool:
    """Whether `folder` holds the scores of an evaluation, or of several checkpoints."""
    return (folder / SCORES_FILE).is_file() or (folder / CURVE_FILE).is_file()


def read_scored(folder: Path, name: str | None = None) -> Scored:
    """The evaluations in a folder with curve.json or scores.json; UserError if they cannot be read."""
    if not (folder / CURVE_FILE).is_file():
        only = read_run(folder / SCORES_FILE)
        made = only.scores["provenance"]
        return Scored(name or made["run"] or folder.resolve().name, folder, ((made["step"], only),))
    run, files = read_curve_file(folder)
    return Scored(name or run, folder, tuple((step, read_run(file)) for step, file in files.items()))


def of_run(run: Run) -> tuple[list[Scored], list[str]]:
    """The evaluations within a run's directory, and a sentence for each that cannot be read."""
    found, remarks = [], []
    for folder in sorted(path for path in (run.folder / "evaluation").glob("*") if is_evaluation(path)):
        try:
            found.append(read_scored(folder, run.name))
        except UserError as error:
            remarks += error.errors
    return found, remarks


def with_own_names(scored: Sequence[Scored]) -> list[Scored]:
    """The evaluations, with their folder in the name of those of one run: another protocol, or other benchmarks."""
    count = Counter(one.name for one in scored)
    return [replace(s, name=f"{s.name}, {s.folder.resolve().name}") if count[s.name] > 1 else s for s in scored]


def section(scored: Sequence[Scored], colours: Mapping[str, int]) -> dict[str, Any]:
    """The section of the page: a chart over steps and one over k for each benchmark.

    Args:
        scored: the evaluations.
        colours: of the runs and their groups on the page, by name: their evaluations have the same.
    """
    others = list(dict.fromkeys(one.name for one in scored if one.name not in colours))
    colours = {**colours, **dict(zip(others, places(others, taken=colours.values()), strict=True))}
    charts = []
    for number, benchmark in enumerate(
        in_papers_order({name for one in scored for name in one.last.scores["benchmarks"]})
    ):
        having = [one for one in scored if all(benchmark in e.scores["benchmarks"] for _, e in one.steps)]
        over_steps = [
            _line(one, colours[one.name], [step for step, _ in one.steps], [e for _, e in one.steps], benchmark)
            for one in having
            if len(one.steps) > 1
        ]
        title = heading(benchmark)
        if over_steps:
            spec = Spec(f"benchmark-{number}", f"{title}: avg@n", PERCENT, (), NOTE * (number == 0), scale=100)
            charts.append({**chart_of(spec, spec.id, spec.title, over_steps), "x": "checkpoint step"})
        over_k = [_pass(one, colours[one.name], benchmark) for one in having]
        if over_k:
            spec = Spec(f"benchmarkk-{number}", f"{title}: pass@k over k", PERCENT, (), scale=100)
            charts.append({**chart_of(spec, spec.id, spec.title, over_k), "x": "samples k", "log": True})
    return {"id": "benchmarks", "title": "Benchmarks", "charts": charts, "absent": []}


def _entry(label: str, colour: int, xs: Sequence[int], estimates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    entry = series_of(-1, "", label, colour)
    entry |= {"xs": list(xs), "ys": [estimate["value"] for estimate in estimates]}
    if all(estimate["low"] is not None for estimate in estimates):
        entry |= {"lows": [e["low"] for e in estimates], "highs": [e["high"] for e in estimates]}
    return entry


def _line(one: Scored, colour: int, steps: Sequence[Any], of: Sequence[Evaluation], benchmark: str) -> dict[str, Any]:
    return _entry(one.name, colour, steps, [e.scores["benchmarks"][benchmark]["avg"] for e in of])


def _pass(one: Scored, colour: int, benchmark: str) -> dict[str, Any]:
    estimates = one.last.scores["benchmarks"][benchmark]["pass"]
    step = one.steps[-1][0]
    ks = sorted(map(int, estimates))
    label = one.name if step is None else f"{one.name}, step {step}"
    return _entry(label, colour, ks, [estimates[str(k)] for k in ks])


def facts_of(one: Scored) -> list[Fact]:
    """The scores of the last evaluation, in percent with intervals."""
    step = one.steps[-1][0]
    found = [Fact("step", "-" if step is None else str(step))]
    for name in in_papers_order(one.last.scores["benchmarks"]):
        scores = one.last.scores["benchmarks"][name]
        n, title = scores["samples"], heading(name)
        kinds = {f"avg@{n}": scores["avg"], f"maj@{n}": scores["maj"][str(n)], f"pass@{n}": scores["pass"][str(n)]}
        problems = f"{scores['problems']} problems"
        found += [Fact(f"{title} {label}", percent(estimate), problems) for label, estimate in kinds.items()]
    return found


def provenance(one: Scored) -> list[Fact]:
    """What the last evaluation was made with; only what was recorded."""
    made = one.last.scores["provenance"]
    protocol = ", ".join(f"{key} {value}" for key, value in sorted(made["protocol"].items()))
    entries = [
        ("directory", str(one.folder)),
        ("model", made.get("model")),
        ("run", made["run"]),
        ("step", made["step"]),
        ("protocol", protocol),
        ("grader", ", ".join(f"{key} {value}" for key, value in sorted(made["grader"].items()))),
        ("commit", made.get("git_commit")),
        *sorted(made["versions"].items()),
    ]
    return [Fact(label, str(value)) for label, value in entries if value not in (None, "")]
