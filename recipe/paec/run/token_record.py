"""Token statistics of a few responses of every training step: `tokens/<step>.parquet` in a run's directory.

One row per response, under the key it has in `rollouts/`; per-token values are lists. The statistics are float16, about
three significant digits; advantages and scores are float32. NumPy and pyarrow are imported at first use: the launcher,
which calls `cut`, is light.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.files import atomic_write
from recipe.paec.common.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FOLDER = "tokens"
FORMAT = 1
STATISTICS = ("log_prob", "entropy", "nucleus_entropy", "nucleus_mass", "top1_log_prob", "top2_log_prob")
"""Columns of float16: fields of `paec_loss.TokenStatistics`, nats; `nucleus_size` is an integer column beside them."""
NEWEST, SPREAD = 20, 100
"""Records that are kept: the newest, and at most so many (and one) of the others, evenly spaced."""


@dataclass(frozen=True)
class RecordedResponse:
    """One response of a record; T tokens."""

    uid: str
    """Its key in the queue and in `rollouts/`: `<prompt>_<sample>_<output>`."""
    input: str
    """The prompt's text."""
    score: float
    """The graded score."""
    prompt_ids: np.ndarray
    """[P] int32."""
    ids: np.ndarray
    """[T] int32, the response."""
    texts: tuple[str, ...]
    """T texts of the single tokens."""
    response_mask: np.ndarray
    """[T] bool, True at the tokens in the loss."""
    advantages: np.ndarray
    """[T] float32, of the advantage estimator, before a method's own changes."""
    nucleus_size: np.ndarray
    """[T] int32."""
    statistics: dict[str, np.ndarray]
    """Name in STATISTICS -> [T] float16 (read as float32)."""

    @property
    def group(self) -> str:
        """The prompt's key: responses with the same one are a group."""
        return self.uid.rsplit("_", 2)[0]


@dataclass(frozen=True)
class TokenRecord:
    """The recorded responses of a step, in the log-prob pass before its updates."""

    step: int
    vocab_size: int
    top_p: float
    """Mass of the nucleus that the statistics describe; 1 if no method of the run has one."""
    temperature: float
    """Of the rollout; the statistics are those at this temperature."""
    seed: int
    """Seed of the run."""
    responses: tuple[RecordedResponse, ...]


def path_of(run: Path, step: int) -> Path:
    """The file of a step's record."""
    return run / FOLDER / f"{step}.parquet"


def steps(run: Path) -> list[int]:
    """The recorded steps of a run, ascending."""
    return sorted(int(file.stem) for file in (run / FOLDER).glob("*.parquet") if file.stem.isdecimal())


def write(run: Path, record: TokenRecord) -> Path:
    """Write a record, completely or not at all, and delete those that `kept` leaves out; returns the file."""
    import pyarrow.parquet as pq

    file = path_of(run, record.step)
    file.parent.mkdir(exist_ok=True)
    about = {name: getattr(record, name) for name in ("step", "vocab_size", "top_p", "temperature", "seed")}
    table = _table(record.responses).replace_schema_metadata({"paec": json.dumps({"format": FORMAT, **about})})
    floats = [f"{name}.list.element" for name in STATISTICS]
    with atomic_write(file) as partial:
        pq.write_table(
            table,
            partial,
            compression="zstd",
            use_dictionary=[name for name in _paths(table) if name not in floats],
            use_byte_stream_split=floats,
        )
    recorded = steps(run)
    for step in set(recorded) - set(kept(recorded)):
        path_of(run, step).unlink(missing_ok=True)
    return file


def _paths(table: pa.Table) -> list[str]:
    import pyarrow as pa

    return [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in table.schema]


def _table(responses: Sequence[RecordedResponse]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    def lists(values: Sequence[Any], kind: pa.DataType) -> pa.ListArray:
        offsets = np.cumsum([0, *map(len, values)])
        flat = np.concatenate([np.asarray(v) for v in values]) if kind != pa.string() else sum(map(list, values), [])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat, kind))

    half = {
        name: lists([r.statistics[name].astype(np.float16) for r in responses], pa.float16()) for name in STATISTICS
    }
    return pa.table(
        {
            "uid": [r.uid for r in responses],
            "group": [r.group for r in responses],
            "input": [r.input for r in responses],
            "score": pa.array([r.score for r in responses], pa.float32()),
            "prompt_ids": lists([r.prompt_ids for r in responses], pa.int32()),
            "ids": lists([r.ids for r in responses], pa.int32()),
            "texts": lists([r.texts for r in responses], pa.string()),
            "response_mask": lists([r.response_mask for r in responses], pa.bool_()),
            "advantages": lists([r.advantages for r in responses], pa.float32()),
            "nucleus_size": lists([r.nucleus_size for r in responses], pa.int32()),
            **half,
        }
    )


def read(file: Path) -> TokenRecord:
    """The record in `file`; UserError if it is missing, of another format, or cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        about = json.loads((table.schema.metadata or {})[b"paec"])
        form = about.pop("format")
    except FileNotFoundError:
        raise UserError(f"{file}: does not exist: the step was not recorded (run.record_tokens)") from None
    except (OSError, pa.ArrowException, KeyError, ValueError):
        raise UserError(f"{file}: is not a complete token record: delete it, or choose another step") from None
    if form != FORMAT:
        raise UserError(f"{file}: has format {form}, but this version reads {FORMAT}: choose another step")
    return TokenRecord(responses=tuple(map(_response, table.to_pylist())), **about)


def _response(row: dict[str, Any]) -> RecordedResponse:
    import numpy as np

    integers = {name: np.array(row[name], np.int32) for name in ("prompt_ids", "ids", "nucleus_size")}
    return RecordedResponse(
        uid=row["uid"],
        input=row["input"],
        score=row["score"],
        texts=tuple(row["texts"]),
        response_mask=np.array(row["response_mask"], bool),
        advantages=np.array(row["advantages"], np.float32),
        statistics={name: np.array(row[name], np.float32) for name in STATISTICS},
        **integers,
    )


def kept(recorded: Sequence[int]) -> list[int]:
    """Which of the recorded steps are kept.

    The NEWEST newest; of the older ones the multiples of the smallest power of two that leaves at most SPREAD, and the
    first. A run of up to NEWEST + SPREAD steps keeps all.
    """
    ordered = sorted(recorded)
    older = ordered[:-NEWEST]
    stride = 1
    while sum(step % stride == 0 for step in older) > SPREAD:
        stride *= 2
    return [step for step in older if step % stride == 0 or step == older[0]] + ordered[-NEWEST:]


def cut(run: Path, last_step: int) -> None:
    """Delete the records of steps after `last_step`, which a resumed run will repeat, and unfinished files."""
    for step in steps(run):
        if step > last_step:
            path_of(run, step).unlink()
    for file in (run / FOLDER).glob(".*.parquet.partial-*"):
        file.unlink()
