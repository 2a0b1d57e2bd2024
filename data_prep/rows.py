"""A table of the user's own as a data set: which columns it has, what it is called, how its answers are scored."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from data_prep.reading import InputError, Record, Source
from data_prep.sets import MAX_PROBLEM, DataSet, Layout, as_text, has_column
from recipe.grading import sources

RESERVED = ("split", "index", "id", "template", "problem", "source")
"""Fields that every prepared row has in its extra_info."""
_HEAD = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OTHER = re.compile(r"[^A-Za-z0-9._-]")


def name_of(given: str) -> str:
    """The name of a data set that is only known by its input: the file's or the hub id's last part."""
    return _OTHER.sub("_", Path(given).stem or given).lstrip("._-") or "rows"


def data_set_of(
    source: Source,
    name: str,
    question: str,
    answer: str,
    *,
    extra: Sequence[str] = (),
    scorer: str | None = None,
    strips: bool = True,
) -> DataSet:
    """The data set of a table.

    Args:
        source: the table; its first rows are read.
        name: letters, digits, `.`, `_` and `-`; with `scorer` it becomes the data source `<scorer>/<name>`.
        question, answer: columns, in any case; `a.b` is the column of that name, else field b of column a.
        extra: columns that a scorer gets as fields of `extra_info`.
        scorer: one of `recipe.grading.sources.NAMES`, or None: `reward.scorers` names one later.
        strips: remove the instructions of other recipes from the prompts.

    Raises:
        InputError: the table has no such column, or the name or the scorer cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"--source {name}: must consist of letters, digits, '.', '_' and '-', such as my_set")
    if scorer is not None:
        _check_scorer(scorer)
    columns = {column for row in islice(source.rows(), _HEAD) if isinstance(row, Record) for column in row.values}
    for option, column in (("--question", question), ("--answer", answer), *(("--extra", one) for one in extra)):
        if columns and not has_column(columns, column.lower()):
            close = difflib.get_close_matches(column.lower(), columns, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            if len(columns) == 1 and any(mark in one for one in columns for mark in ";\t"):
                hint = "; separate the columns by commas"
            raise InputError(f"{source.name}: has no column {column} ({option}), only {_listed(columns)}{hint}")
    if reserved := [column for column in extra if column.lower() in RESERVED]:
        raise InputError(
            f"--extra {reserved[0]}: every row has a field of this name already ({', '.join(RESERVED)}); rename the "
            "column"
        )
    return DataSet(
        name,
        "",
        (Layout(question.lower(), answer.lower(), as_text),),
        {},
        scorer=scorer,
        longest_answer=MAX_PROBLEM,
        keeps_system=True,
        strips=strips,
        extra=tuple(column.lower() for column in extra),
    )


def next_step(data_set: DataSet) -> str:
    """One line: how the rows are scored, or what names their scorer."""
    source = data_set.data_source
    if (scorer := sources.kind(source)) is not None:
        return f"data_source {source}: scored by {scorer}"
    return (
        f"data_source {source}: name its scorer in every command that uses the rows, "
        f"{sources.naming(source)} (docs/scorers.md)"
    )


def _check_scorer(scorer: str) -> None:
    if sources.is_function(scorer):
        raise InputError(
            f"--scorer {scorer}: rows name only the project's scorers, never code; leave it out here, and pass "
            f"reward.scorers.NAME={scorer} to paec train and paec evaluate"
        )
    if problem := sources.check_name(scorer):
        raise InputError(f"--scorer {problem}")
    if "/" in scorer:
        raise InputError(f"--scorer {scorer}: its rows are made with paec data reasoning_gym --task ...")


def _listed(columns: set[str]) -> str:
    return ", ".join(sorted(columns)) or "none"
