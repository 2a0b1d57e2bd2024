"""Token statistics of a few responses of every training step: `tokens/<step>.parquet` in a run's directory.

Those of a validation are in `tokens/validation/<step>.parquet`, in the same form.

One row per response, under the key it has in `rollouts/` (in a validation: under its prompt's data source and index,
the same in every validation); per-token values are lists. The statistics are float16, about
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
from recipe.paec.common.queue_keys import prompt_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FOLDER = "tokens"
VALIDATION = f"{FOLDER}/validation"
FORMAT = 1
STATISTICS = ("log_prob", "entropy", "nucleus_entropy", "nucleus_mass", "top1_log_prob", "top2_log_prob")
"""Columns of float16: fields of `paec_loss.TokenStatistics`, nats; `nucleus_size` is an integer column beside them."""
WAITING = ".waiting.pt"
"""End of the name of a validation's responses without statistics."""
NEWEST, SPREAD = 20, 100
"""Records that are kept: the newest, and at most so many (and one) of the others, evenly spaced."""


@dataclass(frozen=True)
class RecordedResponse:
    """One response of a record; T tokens."""

    uid: str
    """`<prompt>_<sample>_<output>`, in training its key in the queue and in `rollouts/`."""
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
    advantages: np.ndarray | None
    """[T] float32, of the advantage estimator, before a method's own changes; None in a validation."""
    nucleus_size: np.ndarray
    """[T] int32."""
    statistics: dict[str, np.ndarray]
    """Name in STATISTICS -> [T] float16 (read as float32)."""
    rollout_log_prob: np.ndarray | None = None
    """[T] float16 (read as float32), what vLLM reported for the token that it drew; NaN where a tool wrote the token.

    None in a validation, with `rollout.calculate_log_probs=false`, and in records from before this column.
    """

    @property
    def group(self) -> str:
        """The prompt's key: responses with the same one are a group."""
        return prompt_of(self.uid)


@dataclass(frozen=True)
class TokenRecord:
    """The recorded responses of a step, in the log-prob pass before its updates; or of the validation after it."""

    step: int
    vocab_size: int
    top_p: float
    """Mass of the nucleus that the statistics describe; 1 if no method of the run has one."""
    temperature: float
    """Of the training's rollout; the statistics are those at this temperature, also in a validation."""
    seed: int
    """Seed of the run."""
    responses: tuple[RecordedResponse, ...]
    validation: bool = False
    """Whether the responses are those of the validation after `step` (before training: 0)."""


def _folder(run: Path, validation: bool) -> Path:
    return run / (VALIDATION if validation else FOLDER)


def path_of(run: Path, step: int, validation: bool = False) -> Path:
    """The file of a step's record, or of that of the validation after it."""
    return _folder(run, validation) / f"{step}.parquet"


def waiting_path(run: Path, step: int) -> Path:
    """The file of a validation's responses until their statistics are computed."""
    return _folder(run, True) / f"{step}{WAITING}"


def steps(run: Path, validation: bool = False) -> list[int]:
    """The recorded steps of a run, or those whose validation is recorded, ascending."""
    files = _folder(run, validation).glob("*.parquet")
    return sorted(int(file.stem) for file in files if file.stem.isdecimal())


def write(run: Path, record: TokenRecord) -> Path:
    """Write a record, completely or not at all, and delete those that `kept` leaves out; returns the file."""
    import pyarrow.parquet as pq

    file = path_of(run, record.step, record.validation)
    names = ("step", "vocab_size", "top_p", "temperature", "seed", "validation")
    about = {name: getattr(record, name) for name in names}
    table = _table(record.responses).replace_schema_metadata({"paec": json.dumps({"format": FORMAT, **about})})
    floats = [f"{name}.list.element" for name in (*STATISTICS, "rollout_log_prob")]
    with atomic_write(file) as partial:
        pq.write_table(
            table,
            partial,
            compression="zstd",
            use_dictionary=[name for name in _paths(table) if name not in floats],
            use_byte_stream_split=floats,
        )
    recorded = steps(run, record.validation)
    for step in set(recorded) - set(kept(recorded)):
        path_of(run, step, record.validation).unlink(missing_ok=True)
    return file


def _paths(table: pa.Table) -> list[str]:
    import pyarrow as pa

    return [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in table.schema]


def _table(responses: Sequence[RecordedResponse]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    def lists(values: Sequence[Any], kind: pa.DataType) -> pa.ListArray:
        if any(v is None for v in values):
            return pa.array(values, pa.list_(kind))
        offsets = np.cumsum([0, *map(len, values)])
        flat = np.concatenate([np.asarray(v) for v in values]) if kind != pa.string() else sum(map(list, values), [])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat, kind))

    half = {name: lists([_half(r.statistics[name]) for r in responses], pa.float16()) for name in STATISTICS}
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
            "rollout_log_prob": lists([_half(r.rollout_log_prob) for r in responses], pa.float16()),
        }
    )


def _half(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values.astype("float16")


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

    reported = row.get("rollout_log_prob")
    integers = {name: np.array(row[name], np.int32) for name in ("prompt_ids", "ids", "nucleus_size")}
    return RecordedResponse(
        uid=row["uid"],
        input=row["input"],
        score=row["score"],
        texts=tuple(row["texts"]),
        response_mask=np.array(row["response_mask"], bool),
        advantages=None if row["advantages"] is None else np.array(row["advantages"], np.float32),
        statistics={name: np.array(row[name], np.float32) for name in STATISTICS},
        rollout_log_prob=None if reported is None else np.array(reported, np.float32),
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
    """Delete the records of steps after `last_step`, which a resumed run will repeat, and unfinished files.

    What waits for its statistics is kept if it is the validation after `last_step` and has no record yet: only the
    policy of that step, from which the run resumes, can compute them.
    """
    for validation in (False, True):
        for step in steps(run, validation):
            if step > last_step:
                path_of(run, step, validation).unlink()
        for file in _folder(run, validation).glob(".*.partial-*"):
            file.unlink()
    for file in _folder(run, True).glob(f"*{WAITING}"):
        step = file.name.removesuffix(WAITING)
        if step.isdecimal() and (int(step) != last_step or path_of(run, last_step, True).exists()):
            file.unlink()
