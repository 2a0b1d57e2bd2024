"""The journal of an evaluation: responses as they come, append-only, one JSON line each.

A line has the key of a sample (benchmark, problem, sample) and response, finish_reason, tokens and seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipe.paec.common.errors import UserError

Key = tuple[str, str, int]
"""(benchmark, problem, sample): the key of a journal line."""


def read_journal(path: Path) -> dict[Key, dict[str, Any]]:
    """Complete lines of a journal by key; a half-written last line (killed evaluation) is left out.

    Raises:
        UserError: a line in the middle that is not a response (a disk error, or an edit), by its number.
    """
    return dict(_responses(path))


def journal_keys(path: Path) -> set[Key]:
    """The keys of `read_journal`, without holding the responses; UserError as there."""
    return {key for key, _ in _responses(path)}


def repair_journal(path: Path) -> None:
    """Cut off a half-written last line, so that appending continues at the start of a line."""
    if not path.is_file():
        return
    with open(path, "rb+") as stream:
        # Line by line, because a journal may be larger than memory.
        whole = sum(len(line) for line in stream if line.endswith(b"\n"))
        stream.truncate(whole)


def _responses(path: Path) -> Iterator[tuple[Key, dict[str, Any]]]:
    if not path.is_file():
        return
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line.decode("utf-8"))
                key = str(record["benchmark"]), str(record["problem"]), int(record["sample"])
                len(record["response"]), record["finish_reason"], record["tokens"], record["seed"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number}: incomplete response ({type(error).__name__}: {error}): delete this line, "
                    "and resume with the same command"
                ) from None
            yield key, record
