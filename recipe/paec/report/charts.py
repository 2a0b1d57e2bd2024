"""The charts of a report as plain data: what the page draws with uPlot and `figures` with matplotlib."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from recipe.paec.report.catalogue import METHOD, METHOD_UNITS, OF_HBAR, PERCENT, SECTIONS, Line, Section, Spec
from recipe.paec.report.series import OTHER, TIME, Column, Group
from recipe.paec.run.metric_names import ENTROPY, NATS, hbar_unit
from recipe.paec.scoring.display import in_papers_order

STEP = "training step"
COLOURS = 6
"""Colours of lines that the page has."""
AREAS = COLOURS + 1
"""Colours of areas, one more than of lines; after them comes the grey of what is left over."""
DECILE = re.compile(METHOD + r"mask_mass_decile_(\d)")
AVERAGE = re.compile(r"val/(.+)/avg@\d+")
HBAR_TITLE = "H\u0304, entropy at the selected positions"
HBAR_NOTE = "H\u0304 is what the method watches; below the floor its penalty acts."
BELOW_NOTE = "Below its floor, dotted, the method's penalty acts."
NORMALISED_NOTE = "Normalised entropy, 0 to 1, has no unit."
PASS = re.compile(r"val/(.+)/pass@(\d+)")


def matches(line: Line, groups: Sequence[Group]) -> dict[str, str]:
    """Metric -> label of a line, of the metrics that any group has, in the order of their names."""
    found, sources = {}, {m[1] for group in groups for key in group.columns if (m := AVERAGE.fullmatch(key))}
    for group in groups:
        for key, column in group.columns.items():
            if (match := re.fullmatch(line.pattern, key)) and (any(column.y) or not line.if_any):
                label = match.expand(line.label)
                if len(sources) == 1:
                    label = label.removesuffix(next(iter(sources))).rstrip(", ")
                found.setdefault(key, label)
    order = in_papers_order if line.pattern.startswith("val/") else sorted
    return {key: found[key] for key in sorted(order(found), key=_by_number)}


def _by_number(key: str) -> tuple[str, int]:
    """pass@8 before pass@16; stable otherwise."""
    stem, _, number = key.rpartition("@")
    return (stem, int(number)) if number.isdecimal() and stem else ("", 0)


def sections(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The sections of the page: {id, title, charts, absent: titles of the charts that no run has data for}."""
    found = [_section(section, groups) for section in SECTIONS]
    by_id = {section["id"]: section for section in found}
    curves = pass_curves(groups)
    validation = by_id["validation"]["charts"]
    before = next((i for i, chart in enumerate(validation) if chart["id"].startswith("grading")), len(validation))
    validation[before:before] = curves
    by_id["time"]["charts"][:0] = time_charts(groups)
    method = method_charts(groups, {line["key"] for s in found for c in s["charts"] for line in c["series"]})
    at = [section["id"] for section in found].index("time")
    found.insert(at, {"id": "method", "title": "Method", "charts": method, "absent": []})
    return found


def _section(section: Section, groups: Sequence[Group]) -> dict[str, Any]:
    charts, absent = [], []
    for spec in section.specs:
        drawn = _drawn(spec, groups)
        charts += drawn
        if not drawn and not spec.optional:
            absent.append(spec.title)
    return {"id": section.id, "title": section.title, "charts": charts, "absent": absent}


def _drawn(spec: Spec, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The charts of a specification: one for one run, and for several one for each line."""
    lines = [(line, key, label) for line in spec.lines for key, label in matches(line, groups).items()]
    lines = [entry for i, entry in enumerate(lines) if not (entry[0].minor and _repeats(groups, lines[:i], entry[1]))]
    if not lines:
        return []
    if spec.id == "entropy":
        return _entropy_of_one(spec, groups[0], lines) if len(groups) == 1 else _entropy_of_several(spec, groups, lines)
    if len(groups) == 1:
        return [chart_of(spec, spec.id, spec.title, _series_of_one(lines))]
    kept = [entry for entry in lines if not entry[0].minor]
    charts = []
    for i, (line, key, label) in enumerate(kept):
        title = spec.title if len(kept) == 1 else _title_of_line(spec, label)
        series = [
            series_of(j, key, g.name, g.place, points=line.points) for j, g in enumerate(groups) if key in g.columns
        ]
        charts.append(
            chart_of(spec if i == 0 else replace(spec, note=""), f"{spec.id}-{i}" if i else spec.id, title, series)
        )
    return charts


def _title_of_line(spec: Spec, label: str) -> str:
    """Title of the chart of one line of several."""
    if not spec.bare:
        return f"{spec.title}: {label}"
    if "@" in label:  # a metric's name, pass@8
        return label
    return label[0].upper() + label[1:]


def _series_of_one(lines: Sequence[tuple[Line, str, str]]) -> list[dict[str, Any]]:
    """The lines of one run, each in a colour of its own."""
    return [series_of(0, key, label, i, line.dashes, line.points) for i, (line, key, label) in enumerate(lines)]


def _repeats(groups: Sequence[Group], earlier: list[tuple[Line, str, str]], key: str) -> bool:
    """Whether a metric is the same as one before it in the chart, in every run: then it says nothing."""
    mine = [group.columns.get(key) for group in groups]
    known = any(column is not None and any(column.y) for column in mine)
    return known and any(mine == [group.columns.get(other) for group in groups] for _, other, _ in earlier)


def _unit_of(group: Group, key: str) -> str:
    """Unit of H-bar, its anchor and its floor in a group."""
    return hbar_unit(group.runs[0].config, key)


def _entropy_of_one(spec: Spec, group: Group, lines: list[tuple[Line, str, str]]) -> list[Any]:
    """Of one run: token entropy with H-bar, anchor and floor; these in a chart of their own where they have no unit."""
    apart = [entry for entry in lines if entry[1] != ENTROPY and _unit_of(group, entry[1]) != NATS]
    beside = [entry for entry in lines if entry not in apart]
    charts = []
    if beside:
        own = replace(spec, note=f"{spec.note} {HBAR_NOTE}") if len(beside) > 1 else spec
        charts.append(chart_of(own, spec.id, spec.title, _series_of_one(beside)))
    if apart:
        own = replace(spec, unit="", note=f"{NORMALISED_NOTE} {HBAR_NOTE}")
        charts.append(chart_of(own, "hbar", HBAR_TITLE, _series_of_one(apart)))
    return charts


def _entropy_of_several(
    spec: Spec, groups: Sequence[Group], lines: list[tuple[Line, str, str]]
) -> list[dict[str, Any]]:
    """Of several runs: one chart of token entropy, and one of H-bar with the floors, for each unit that these have."""
    entropy: list[dict[str, Any]] = []
    by_unit: dict[str, list[dict[str, Any]]] = {NATS: [], "": []}
    for j, group in enumerate(groups):
        for line, key, label in lines:
            if key not in group.columns or label == "anchor":
                continue
            dashes = max(line.dashes, group.place // COLOURS % 3)
            if key == ENTROPY:
                entropy.append(series_of(j, key, group.name, group.place, dashes))
            else:
                text = f"{group.name}, floor" if label == "floor" else group.name
                by_unit[_unit_of(group, key)].append(series_of(j, key, text, group.place, dashes))
    charts = [chart_of(spec, spec.id, "Token entropy, all tokens", entropy)] if entropy else []
    known = [unit for unit, series in by_unit.items() if series]
    for i, unit in enumerate(known):
        note = BELOW_NOTE if unit else f"{NORMALISED_NOTE} {BELOW_NOTE}"
        own = replace(spec, unit=unit, note=note)
        charts.append(chart_of(own, f"hbar-{i}" if i else "hbar", HBAR_TITLE, by_unit[unit]))
    return charts


def series_of(
    group: int, key: str, label: str, index: int, dashes: int | None = None, points: bool = False
) -> dict[str, Any]:
    """A line of a chart, or its points alone; lines beyond the page's colours are told apart by dashes."""
    dashes = index // COLOURS % 3 if dashes is None else dashes
    style = {"colour": index % COLOURS, "dashes": dashes, **({"points": True} if points else {})}
    return {"label": label, "group": group, "key": key, **style}


def chart_of(spec: Spec, name: str, title: str, series: list[dict[str, Any]]) -> dict[str, Any]:
    """A chart as plain data: what the page and the figures draw."""
    return {
        **{"id": name, "title": title, "note": spec.note, "kind": "lines", "x": STEP, "unit": spec.unit},
        **{"scale": spec.scale, "wide": spec.wide, "small": False, "series": series},
    }


# ---- charts of their own ---------------------------------------------------------------------------------------------


def chosen(steps: Sequence[int], most: int) -> list[int]:
    """At most `most` of these steps, evenly spaced, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def _snapshots(groups: Sequence[Group], number: int, columns: Iterable[Column]) -> list[tuple[int, str, int]]:
    """(step, label, index of its colour) of the lines of a run's state at a step: of one run at four steps that all
    `columns` have, of each of several runs at the last of them."""
    common = sorted(set.intersection(*(set(column.x) for column in columns)))
    if len(groups) == 1:
        return [(step, f"step {step}", i) for i, step in enumerate(chosen(common, 4))]
    return [(step, f"{groups[number].name}, step {step}", groups[number].place) for step in common[-1:]]


def pass_curves(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """pass@k over k, a chart for each validation set: one run at several steps, several runs at their last one."""
    found = {m[1]: None for group in groups for key in group.columns if (m := PASS.fullmatch(key))}
    charts = []
    for number, source in enumerate(in_papers_order(found)):
        series = []
        for j, group in enumerate(groups):
            columns = {int(m[2]): c for k, c in group.columns.items() if (m := PASS.fullmatch(k)) and m[1] == source}
            if len(columns) < 2:
                continue
            for step, label, index in _snapshots(groups, j, columns.values()):
                at = {k: column.x.index(step) for k, column in sorted(columns.items())}
                entry = series_of(j, f"pass@k of {source}", label, index)
                entry |= {"xs": list(at), "ys": [columns[k].y[place] for k, place in at.items()]}
                if columns[1].low is not None:
                    entry["lows"] = [columns[k].low[place] for k, place in at.items()]
                    entry["highs"] = [columns[k].high[place] for k, place in at.items()]
                series.append(entry)
        if series:
            spec = Spec(f"passk-{number}", f"pass@k over k, {source}", PERCENT, (), scale=100)
            charts.append({**chart_of(spec, spec.id, spec.title, series), "x": "samples k", "log": True})
    return charts


def time_charts(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Where a step's time goes: shares of its stages, stacked, a chart for each run."""
    charts = []
    for j, group in enumerate(groups):
        keys = [key for key in group.columns if key.startswith(TIME)]
        keys.sort(key=lambda key: -_mean(group.columns[key].y))
        title = "Time by stage" if len(groups) == 1 else f"Time by stage, {group.name}"
        stages = [key for key in keys if key != TIME + OTHER]
        fills = {key: {"colour": i % AREAS, "dashes": i // AREAS} for i, key in enumerate(stages)}
        fills[TIME + OTHER] = {"colour": AREAS, "dashes": 0}
        series = [series_of(j, key, key.removeprefix(TIME), 0) | fills[key] for key in keys]
        spec = Spec(
            f"stages-{j}" if j else "stages",
            title,
            "% of the step",
            (),
            "" if j else _STAGES,
            100,
            wide=len(groups) == 1,
        )
        if series:
            charts.append({**chart_of(spec, spec.id, title, series), "kind": "stack"})
    return charts


_STAGES = (
    "gen: rollout; old_log_prob: log-probs under the actor; adv: advantages; update_actor: updates; update_weights: "
    "weight sync; other: what no timer covers. Validation is not a part of a step."
)


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def method_charts(groups: Sequence[Group], taken: set[str]) -> list[dict[str, Any]]:
    """The other metrics of the methods: one chart each, and where in the responses the mask lies."""
    charts = decile_charts(groups)
    keys = {key: None for group in groups for key in group.columns if re.fullmatch(METHOD + r"[\w/]+", key)}
    methods = {key.split("/")[1] for key in keys}
    for key in keys:
        _, method, name = key.split("/", 2)
        if key in taken or DECILE.fullmatch(key) or name in ("anchor", "floor", "entropy"):
            continue
        title, unit, scale = METHOD_UNITS.get(name, (name, "", 1))
        if len(methods) > 1:
            title = f"{method}: {title}"
        by_unit: dict[str, list[dict[str, Any]]] = {}
        for j, group in enumerate(groups):
            if key in group.columns:
                own = _unit_of(group, key) if unit == OF_HBAR else unit
                label = group.name if len(groups) > 1 else name
                by_unit.setdefault(own, []).append(series_of(j, key, label, group.place))
        for i, (own, series) in enumerate(by_unit.items()):
            spec = Spec(f"method-{method}-{name}" + (f"-{i}" if i else ""), title, own, (), scale=scale)
            charts.append(chart_of(spec, spec.id, title, series) | {"small": True})
    return charts


def decile_charts(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The share of the mask's mass in each tenth of the response: one run at several steps, several at their last."""
    series = []
    for j, group in enumerate(groups):
        columns = {int(m[2]): c for key, c in group.columns.items() if (m := DECILE.fullmatch(key))}
        if len(columns) != 10:
            continue
        for step, label, index in _snapshots(groups, j, columns.values()):
            values = [columns[d].y[columns[d].x.index(step)] for d in range(10)]
            entry = series_of(j, "mask by position", label, index)
            series.append(entry | {"xs": [10 * d + 5 for d in range(10)], "ys": values})
    note = "Share of the mask's mass in each tenth of the response: 10 % everywhere if position did not matter."
    spec = Spec("deciles", "Where in the response the mask lies", "% of the mask", (), note, 100, wide=True)
    return [{**chart_of(spec, spec.id, spec.title, series), "x": "place in the response, %"}] if series else []
