"""A search from its first setting to its last: draw, train, record, until every method has spent its budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from recipe.paec.common.console import say
from recipe.search.request import Request, check_count
from recipe.search.runners import Ended, Runner, spent_by
from recipe.search.space import Space, space_of, text_of
from recipe.search.studies import Setting, Studies


def spaces_of(request: Request, runner: Runner) -> dict[str, Space]:
    """The settings of each method of a search, checked.

    Raises:
        UserError: a method, field, value, metric or budget that cannot be.
    """
    found = {}
    for name, knobs in request.methods.items():
        found[name] = space_of(name, knobs, runner.stack(name))
        check_count(request, found[name])
    request.objective.check(runner.metrics())
    return found


def search(request: Request, studies: Studies, runner: Runner, changed: Callable[[Mapping[str, str]], None]) -> Ended:
    """Train every setting that the budget wants and that is not finished.

    A setting with a run that fails stays begun, and is tried again by the next search in the folder.

    Args:
        changed: called at the beginning, after every finished setting, and at the end, with the failures so far.
    """
    ended = Ended()
    changed(ended.failures)

    def finished(setting: Setting) -> None:
        try:
            studies.finish(setting, result_of(request, runner, setting))
        except ValueError as error:
            ended.failures[setting.label] = f"{setting.label}: {error}"
            return
        mean = next(one.mean for one in studies.settings(setting.method) if one.place == setting.place)
        say(f"{setting.label} ({text_of(setting.params)}): objective {mean:.5f}")
        changed(ended.failures)

    while due := studies.due(ended.failures):
        now = runner.run(due, finished)
        ended.failures |= now.failures
        if now.code is not None:
            ended.code = now.code
            break
    changed(ended.failures)
    return ended


def result_of(request: Request, runner: Runner, setting: Setting) -> dict[str, object]:
    """What its runs gave and cost (`Setting.result`); ValueError if one has no objective."""
    values, spent = {}, []
    for seed in request.seeds:
        lines = runner.lines(setting, seed)
        try:
            values[seed] = request.objective.value(lines, runner.steps)
        except ValueError as error:
            raise ValueError(f"seed {seed}: {error}") from None
        spent.append(spent_by(lines))
    return {"values": values, **total(spent)}


def total(parts: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Sums of steps, seconds and processor seconds; None where a part is not known."""
    keys = ("steps", "seconds", "cpu_seconds")
    columns = {key: [part[key] for part in parts] for key in keys}
    return {key: None if None in column else sum(column) for key, column in columns.items()}
