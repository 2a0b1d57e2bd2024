"""What a training gained and what it kept: accuracy and pass@n of its validations as a path in a plane."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from recipe.paec.common.errors import UserError
from recipe.paec.compare.comparison import FEW_SEEDS, difference_from, tested_over
from recipe.paec.compare.evaluations import Evaluation, SeedGroup
from recipe.paec.report.catalogue import PERCENT, Spec
from recipe.paec.report.charts import AVERAGE, chart_of, series_of
from recipe.paec.report.runs import Run
from recipe.paec.report.series import Group
from recipe.paec.report.validations import counts_of
from recipe.paec.run.metric_names import ENTROPY
from recipe.paec.run.summary import last_tenth
from recipe.paec.scoring.display import in_papers_order
from recipe.paec.scoring.estimators import Difference

KIND, TITLE = "plane", "Gained and kept"
NOTE = (
    "A path for each run, a dot for each of its validations, the large one for the last. To the right is what a "
    "training gained: a single answer is right more often. Downwards is what it lost: problems that it no longer "
    "solves in {n} tries."
)
BASELINE = "none"
"""The method that others are subtracted from: GRPO by itself."""
TOLERANCE = 1e-4
"""Between a metric and the same quantity of the recorded samples; some metrics are kept with five digits."""

Place = tuple[str, int]
"""Data source, and samples n of each of its problems."""


def places_of(groups: Sequence[Group]) -> list[Place]:
    """Validations that drew several samples of each problem: those with avg@n and pass@n, n > 1."""
    found: set[Place] = set()
    for group in groups:
        for key in group.columns:
            if (match := AVERAGE.fullmatch(key)) and (n := int(key.rpartition("@")[2])) > 1:
                found |= {(match[1], n)} if f"val/{match[1]}/pass@{n}" in group.columns else set()
    order = in_papers_order({source for source, _ in found})
    return sorted(found, key=lambda place: (order.index(place[0]), place[1]))


def path_of(group: Group, place: Place) -> dict[int, tuple[float, float]]:
    """Step -> (avg@n, pass@n) of the validations that have both, in order; of several seeds the means."""
    source, n = place
    columns = [group.columns.get(f"val/{source}/{kind}@{n}") for kind in ("avg", "pass")]
    if None in columns:
        return {}
    average, solved = (dict(zip(column.x, column.y, strict=True)) for column in columns if column)
    steps = sorted(average.keys() & solved.keys())
    return {step: (x, y) for step in steps if (x := average[step]) is not None and (y := solved[step]) is not None}


def section(groups: Sequence[Group], findings: Mapping[Place, Sequence[str]]) -> list[dict[str, Any]]:
    """The section of the page, a chart for each validation set; none where no run drew several samples.

    Args:
        groups: what is drawn.
        findings: sentences beside a chart, of `findings_of`.
    """
    places = places_of(groups)
    charts = []
    for number, (source, n) in enumerate(places):
        series = []
        for j, group in enumerate(groups):
            if path := path_of(group, (source, n)):
                entry = series_of(j, f"avg@{n} and pass@{n} of {source}", group.name, group.place)
                xs, ys = zip(*path.values(), strict=True)
                series.append(entry | {"steps": list(path), "xs": [100 * x for x in xs], "ys": list(ys)})
        if sum(len(entry["steps"]) for entry in series) < 2:
            continue
        title = f"pass@{n} over avg@{n}" + (f", {source}" if len(places) > 1 else "")
        name = f"plane-{number}" if charts else "plane"
        spec = Spec(name, title, PERCENT, (), NOTE.format(n=n) if not charts else "", scale=100)
        about = {"kind": KIND, "x": f"avg@{n} of {source}", "axes": [f"avg@{n}", f"pass@{n}"]}
        charts.append({**chart_of(spec, name, title, series), **about, "findings": findings.get((source, n), ())})
    return [{"id": "plane", "title": TITLE, "charts": charts, "absent": []}] if charts else []


# ---- what is said beside a chart -------------------------------------------------------------------------------------


def findings_of(groups: Sequence[Group]) -> dict[Place, list[str]]:
    """Sentences about the first two groups at the last validation that both have, for each validation set.

    What the method gained and lost against GRPO, or the second group against the first, with 95 % intervals where the
    samples were recorded (as `paec compare` computes them), and the token entropies. Empty for one group.
    """
    if len(groups) < 2:
        return {}
    first, other = sorted(groups[:2], key=lambda group: group.runs[0].method != BASELINE)
    found = {}
    for place in places_of(groups[:2]):
        paths = path_of(other, place), path_of(first, place)
        if common := paths[0].keys() & paths[1].keys():
            step = max(common)
            gained = [a - b for a, b in zip(paths[0][step], paths[1][step], strict=True)]
            found[place] = [_difference(other, first, place, step, gained), *_entropies((first, other), step)]
    return found


def _difference(group: Group, baseline: Group, place: Place, step: int, gained: Sequence[float]) -> str:
    """avg@n and pass@n of a group minus the baseline's, `gained`, in percentage points."""
    parts: list[Difference] = [Difference(value, None, None, None) for value in gained]
    try:
        (own, theirs), problems = _paired((group, baseline), place, step)
        parts = [difference_from(own, theirs, [place[0]], kind) for kind in ("avg", "pass")]
        over = tested_over(own, theirs)
        about = f"95 % intervals over {over.replace('problems', f'{problems} problems')}"
        if over != "problems" and (few := min(len(own.runs), len(theirs.runs))) < FEW_SEEDS:
            about += f"; with {few} seeds they can be too narrow"
    except UserError as error:
        about = f"no intervals: {error.errors[0]}"
    kinds = zip((f"avg@{place[1]}", f"pass@{place[1]}"), parts, strict=True)
    listed = ", ".join(f"{kind} {points(part)}" for kind, part in kinds)
    return f"{group.name} minus {baseline.name} at step {step}: {listed} percentage points ({about})."


def _paired(groups: Sequence[Group], place: Place, step: int) -> tuple[list[SeedGroup], int]:
    """The groups' samples as evaluations of the same problems, and the number of these.

    Raises:
        UserError: why they cannot be paired.
    """
    source, n = place
    methods = [SeedGroup(group.name, tuple(_evaluation(run, place, step) for run in group.runs)) for group in groups]
    names = [tuple(run.scores["benchmarks"][source]["per_problem"]) for method in methods for run in method.runs]
    if len(set(names)) > 1:
        raise UserError("the runs were validated on different problems")
    return methods, len(names[0])


def _evaluation(run: Run, place: Place, step: int) -> Evaluation:
    source, n = place
    if len({match[1] for record in run.records for key in record if (match := AVERAGE.fullmatch(key))}) > 1:
        raise UserError("the recorded samples do not say to which of several data sources they belong")
    counts = counts_of(run, step, n)
    recorded = next(record for record in run.records if record["step"] == step)[f"val/{source}/avg@{n}"]
    if abs(np.mean([*counts.values()]) / n - recorded) > TOLERANCE:
        raise UserError(f"the samples of {run.name} are not those of its metrics.jsonl")
    scores = {"samples": n, "per_problem": {name: {"correct": count} for name, count in counts.items()}}
    # Seeds are paired by the name of their run.
    own = {"run": f"{run.name}-seed{run.setting('seed')}"}
    return Evaluation(run.folder, {"benchmarks": {source: scores}, "provenance": own})


def points(part: Difference) -> str:
    """`+1.3 [-0.4, 3.0]`, in percentage points with true minus signs; without brackets if there is no interval."""
    text = f"{100 * part.value:+.1f}"
    if part.low is not None and part.high is not None:
        text += f" [{100 * part.low:.1f}, {100 * part.high:.1f}]"
    return re.sub(r"[+-](0\.0)\b", r"\1", text).replace("-", "\N{MINUS SIGN}")


def _entropies(groups: Sequence[Group], step: int) -> list[str]:
    """Token entropy of both over the last tenth of the training steps that both have up to the validation."""
    columns = [group.columns.get(ENTROPY) for group in groups]
    known = [
        {x: y for x, y in zip(column.x, column.y, strict=True) if y is not None and x <= step} if column else {}
        for column in columns
    ]
    if not (both := last_tenth(sorted(set.intersection(*map(set, known))))):
        return []
    where = f"at step {both[0]}" if len(both) == 1 else f"in steps {both[0]} to {both[-1]}"
    listed = ", ".join(
        f"{group.name} {fmean(of[at] for at in both):.4f}" for group, of in zip(groups, known, strict=True)
    )
    return [f"Token entropy {where}, nats: {listed}."]
