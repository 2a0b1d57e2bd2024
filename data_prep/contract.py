"""verl's row contract: what every parquet file must contain before a run may start.

    data_source   non-empty str, names the scorer
    prompt        [{"role": "system" | "user" | "assistant", "content": str}, ...], the last one from the user
    ability       str
    reward_model  {"style": "rule", "ground_truth": non-empty}
    extra_info    {"split": str, "index": int, ...}

verl itself meets a bad row in the middle of a run, or scores it 0; `validate_rows` names it beforehand.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.files import atomic_write

COLUMNS = ("data_source", "prompt", "ability", "reward_model", "extra_info")
ROLES = ("system", "user", "assistant")

_TEXT = "give a non-empty string"
_PROMPT = 'every row needs a non-empty list of {"role", "content"} that ends with the user\'s turn'
_REWARD_MODEL = 'every row needs {"style": "rule", "ground_truth": ...}'
_EXTRA_INFO = 'every row needs {"split": str, "index": int}'


class ContractError(ValueError):
    """A file breaks the row contract; the message is one sentence with file, row, field and remedy."""


class _Breach(Exception):
    """A bad field within one row: field, what is wrong, remedy."""


def validate_rows(path: str | Path) -> pd.DataFrame:
    """Read a parquet file and check every row.

    Returns:
        The frame as read; nested fields are what pyarrow makes of them (numpy arrays of dicts).

    Raises:
        FileNotFoundError: the file does not exist.
        ContractError: the file is unreadable, empty, lacks a column or contains a bad row (the first one is named).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: does not exist; prepare it first, or correct the path")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ContractError(f"{path}: is not a readable parquet file ({error}); prepare it again") from error
    # Checked before pandas reads it: one missing int turns a complete nested column into floats there.
    _check(table.to_pylist(), table.column_names, str(path))
    return table.to_pandas()


def write_parquet(rows: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Check `rows` against the contract, then write them to `path`, completely or not at all."""
    with atomic_write(path) as partial:
        write_parquet_part(rows, partial, str(path))


def write_parquet_part(rows: Iterable[Mapping[str, Any]], partial: Path, name: str) -> None:
    """Check `rows` against the contract, then write them to a file of `atomic_write`; errors say `name`."""
    rows = list(rows)
    _check(rows, COLUMNS, name)
    pd.DataFrame(rows).to_parquet(partial, index=False)


def _check(rows: Sequence[Mapping[str, Any]], columns: Collection[str], name: str) -> None:
    for column in COLUMNS:
        if column not in columns:
            raise ContractError(f"{name}, field {column}: is missing; every row needs {', '.join(COLUMNS)}")
    if not rows:
        raise ContractError(f"{name}: has no rows; a data file needs at least one")
    for index, row in enumerate(rows):
        try:
            _check_row(*(row.get(column) for column in COLUMNS))
        except _Breach as breach:
            field, problem, remedy = breach.args
            raise ContractError(f"{name}, row {index}, field {field}: {problem}; {remedy}") from None


def _check_row(data_source: Any, prompt: Any, ability: Any, reward_model: Any, extra_info: Any) -> None:
    _text("data_source", data_source, _TEXT, allow_empty=False)
    if _missing(prompt):
        raise _Breach("prompt", "missing", _PROMPT)
    if isinstance(prompt, (str, Mapping)) or not isinstance(prompt, Iterable):
        raise _Breach("prompt", f"{type(prompt).__name__} instead of a list", _PROMPT)
    turns = list(prompt)
    if not turns:
        raise _Breach("prompt", "empty", _PROMPT)
    for i, turn in enumerate(turns):
        _mapping(f"prompt[{i}]", turn, _PROMPT)
        for key in ("role", "content"):
            _text(f"prompt[{i}].{key}", turn.get(key), _PROMPT)
        if turn["role"] not in ROLES:
            raise _Breach(f"prompt[{i}].role", f"unknown role {turn['role']!r}", f"use one of {', '.join(ROLES)}")
    if turns[-1]["role"] != "user":
        raise _Breach(f"prompt[{len(turns) - 1}].role", f"last turn is of role {turns[-1]['role']!r}", _PROMPT)

    _text("ability", ability, "give a string such as math")

    _mapping("reward_model", reward_model, _REWARD_MODEL)
    _text("reward_model.style", reward_model.get("style"), _REWARD_MODEL)
    if reward_model["style"] != "rule":
        raise _Breach("reward_model.style", f"{reward_model['style']!r} is not supported", _REWARD_MODEL)
    ground_truth = reward_model.get("ground_truth")
    if _missing(ground_truth):
        raise _Breach("reward_model.ground_truth", "missing", _REWARD_MODEL)
    if hasattr(ground_truth, "__len__") and len(ground_truth) == 0:
        raise _Breach("reward_model.ground_truth", "empty", _REWARD_MODEL)

    _mapping("extra_info", extra_info, _EXTRA_INFO)
    _text("extra_info.split", extra_info.get("split"), _EXTRA_INFO)
    index = extra_info.get("index")
    if _missing(index):
        raise _Breach("extra_info.index", "missing", _EXTRA_INFO)
    if isinstance(index, bool) or not isinstance(index, Integral):
        raise _Breach("extra_info.index", f"{type(index).__name__} instead of an int", _EXTRA_INFO)


def _missing(value: Any) -> bool:
    # pyarrow fills a field that only other rows have with None; a column that pandas wrote may hold NaN (NaN != NaN).
    return value is None or (isinstance(value, float) and value != value)


def _text(field: str, value: Any, remedy: str, allow_empty: bool = True) -> None:
    if _missing(value):
        raise _Breach(field, "missing", remedy)
    if not isinstance(value, str):
        raise _Breach(field, f"{type(value).__name__} instead of a string", remedy)
    if not (value or allow_empty):
        raise _Breach(field, "empty", remedy)


def _mapping(field: str, value: Any, remedy: str) -> None:
    if _missing(value):
        raise _Breach(field, "missing", remedy)
    if not isinstance(value, Mapping):
        raise _Breach(field, f"{type(value).__name__} instead of a mapping", remedy)
