"""The outcome of a search: search.json, search.md, and what trains the chosen settings with other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.paec.common.files import replace_file, write_json
from recipe.paec.scoring.display import markdown
from recipe.search.loop import total
from recipe.search.request import Request
from recipe.search.runners import Runner
from recipe.search.space import Params, Space, text_of
from recipe.search.studies import Setting, Studies

VALUES, TABLE = "search.json", "search.md"
OTHER_SEEDS = 3
"""Seeds for the chosen settings: the smallest that the search did not use."""


def chosen_of(settings: Sequence[Setting], wanted: int) -> Setting | None:
    """The setting with the largest objective, the earlier one of equal ones; None before all `wanted` are finished."""
    finished = [one for one in settings if one.mean is not None]
    return max(finished, key=lambda one: (one.mean, -one.place)) if len(finished) == wanted else None


def summary(
    request: Request, spaces: Mapping[str, Space], found: Mapping[str, Sequence[Setting]], failures: Mapping[str, str]
) -> dict[str, Any]:
    """The search as JSON.

    Args:
        found: method -> its settings so far.
        failures: label of a setting -> why a run of it failed.

    Returns:
        name, about (`Request.written`), objective in words; methods, each {method, knobs, of, settings, chosen, spent}:
        `of` is the number of settings it gets, `chosen` the place of the best one or null, a setting has place, params,
        values by seed, objective (their mean), steps, seconds, cpu_seconds and failed; equal, whether every method has
        spent the same budget; and audit, which says so in words.
    """
    rows = []
    for name, settings in found.items():
        wanted, best = request.settings(name), chosen_of(settings, request.settings(name))
        finished = [one.result for one in settings if one.result is not None]
        listed = [
            {
                "place": one.place,
                "params": one.params,
                "objective": one.mean,
                **(one.result or {"values": None, "steps": None, "seconds": None, "cpu_seconds": None}),
                "failed": failures.get(one.label),
            }
            for one in settings
        ]
        spent = {"settings": len(finished), "runs": len(finished) * len(request.seeds), **total(finished)}
        knobs = spaces[name].written()
        row = {"method": name, "knobs": knobs, "of": wanted, "settings": listed, "spent": spent}
        rows.append({**row, "chosen": None if best is None else best.place})
    equal, sentence = audit(request, rows)
    about = request.written()
    head = {"name": request.name, "about": about, "objective": request.objective.sentence()}
    return {**head, "methods": rows, "equal": equal, "audit": sentence}


def audit(request: Request, rows: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """Whether every method has spent the same budget, counted from the finished settings; and a sentence about it."""
    missing = [f"{row['method']} {row['spent']['settings']} of {row['of']}" for row in rows if row["chosen"] is None]
    searched = [row for row in rows if row["knobs"]]
    budgets = {(row["spent"]["settings"], row["spent"]["runs"], row["spent"]["steps"]) for row in searched}
    plain = [row["method"] for row in rows if not row["knobs"]]
    only = f" Without a knob, so with one setting: {', '.join(plain)}." if plain else ""
    if missing:
        return False, f"Budget: not spent yet: {', '.join(missing)} settings.{only}"
    if len(budgets) > 1:
        spent = "; ".join(f"{r['method']} {r['spent']['runs']} runs, {r['spent']['steps']} steps" for r in searched)
        return False, f"Budget: not equal: {spent}.{only}"
    if not budgets:
        return True, f"Budget: nothing was searched.{only}"
    settings, runs, steps = budgets.pop()
    each = f"{settings} settings x {len(request.seeds)} seeds = {runs} runs, {steps} steps"
    return True, f"Budget: the same for every method with a knob: {each}.{only}"


def to_markdown(result: Mapping[str, Any]) -> str:
    """Every setting with its objective, the chosen ones in bold; what each method spent; and the audit."""
    seeds = [str(seed) for seed in result["about"]["seeds"]]
    rows, spent = [["Method", "setting", "objective", *(f"seed {seed}" for seed in seeds)]], []
    spent.append(["Method", "settings", "runs", "steps", "seconds", "CPU seconds"])
    unfinished = []
    for row in result["methods"]:
        for one in row["settings"]:
            text = text_of(one["params"]) + (" (default)" if one["place"] == 0 and row["knobs"] else "")
            if one["objective"] is None:
                why = f": {one['failed']}" if one["failed"] else ""
                unfinished.append(f"* {row['method']}, {text}: not finished{why}")
                continue
            text = f"**{text}**" if one["place"] == row["chosen"] else text
            cells = [f"{value:.4f}" for value in (one["objective"], *(one["values"][seed] for seed in seeds))]
            rows.append([row["method"], text, *cells])
        of, cost = row["of"], row["spent"]
        number = f"{cost['settings']}" + (f" of {of}" if cost["settings"] < of else "")
        steps = [str(cost["runs"]), f"{cost['steps']}"]
        spent.append([row["method"], number, *steps, _whole(cost["seconds"]), _whole(cost["cpu_seconds"])])
    about = result["about"]
    overrides = f" Overrides: {' '.join(about['all'])}." if about["all"] else ""
    caption = (
        f"Objective: {result['objective']}; mean over seeds {', '.join(seeds)}. Sampler: "
        f"{about['sampler']['name']}, seed {about['sampler']['seed']}. Bold: chosen, the largest objective (of equal "
        f"ones the first).{overrides}"
    )
    below = "Seconds are those of training steps, without validations."
    parts = [markdown(rows), caption + "\n", markdown(spent), below + "\n", result["audit"]]
    return "\n".join([*parts, *(["", "Not in the table:\n", *unfinished] if unfinished else [])]) + "\n"


def _whole(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.0f}"


def other_seeds(used: Sequence[int]) -> list[int]:
    """The smallest seeds >= 1 that the search did not use: the chosen settings are judged by runs of their own."""
    return [seed for seed in range(1, len(used) + OTHER_SEEDS + 1) if seed not in used][:OTHER_SEEDS]


def write(
    folder: Path,
    request: Request,
    spaces: Mapping[str, Space],
    studies: Studies,
    runner: Runner,
    failures: Mapping[str, str],
) -> tuple[str, list[Path]]:
    """Write search.json and search.md, and, when the whole budget is spent, the file for the runs that follow.

    Returns:
        The table, and the files.
    """
    found = {name: studies.settings(name) for name in spaces}
    result = summary(request, spaces, found, failures)
    text = to_markdown(result)
    write_json(folder / VALUES, result)
    replace_file(folder / TABLE, text, sync=True)
    files = [folder / VALUES, folder / TABLE]
    best = {name: chosen_of(settings, request.settings(name)) for name, settings in found.items()}
    if None not in best.values():
        chosen: dict[str, Params] = {name: one.params for name, one in best.items()}
        name, content = runner.next(chosen, other_seeds(request.seeds))
        replace_file(folder / name, content, sync=True)
        files.append(folder / name)
    else:  # an earlier one lacks the methods that were added
        (folder / runner.following).unlink(missing_ok=True)
    return text, files
