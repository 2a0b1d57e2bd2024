"""The token record of a validation: a few prompts' responses, whose statistics the next log-prob pass computes.

A validation has no log-prob pass, and while it runs the accelerators may have no room for one: vLLM's engine is awake.
So its responses wait for the next step's pass, which has the same weights, and get a small pass of their own before it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from data_prep.files import atomic_write
from recipe.paec.actor.batches import OUTPUT_NAMES, RECORDED, response_statistics
from recipe.paec.common.errors import UserError
from recipe.paec.common.queue_keys import parts_of
from recipe.paec.driver.token_recorder import recorded
from recipe.paec.run.token_record import TokenRecord, waiting_path, write

PARTITION = "recorded_validation"
"""Partition of the queue for the pass; empty at all other times."""
FIELDS = ["prompts", "responses", "response_mask", "rm_scores"]
"""Fields of a response that are fetched after its generation."""
SECONDS = "record_validation"
"""Timer within that of the stage in which the pass runs: `old_log_prob`, or `testing` after the last step."""

Rows = dict[str, dict[str, torch.Tensor]]
"""Key of a response -> FIELDS, [P] or [T] each."""


def prompt_name(data_source: str, index: int) -> str:
    """The name of a validation prompt, the same in every validation and run on the same data."""
    return f"validation-{data_source}-{index}"


class ValidationRecorder:
    """Keeps the responses to the first `run.record_tokens` prompts of a validation, and writes their record.

    Of a prompt, at most `rollout.n` responses, as many as a training step has. What waits is also in a file, which a
    checkpoint of the same step waits for: a run that resumes from there computes the statistics. 0 prompts: nothing.
    """

    def __init__(self, config: DictConfig, top_p: float) -> None:
        rollout = config.actor_rollout_ref.rollout
        self._prompts, self._samples = config.run.record_tokens, rollout.n
        self._directory = Path(config.run.directory)
        self._about = {"top_p": top_p, "temperature": rollout.temperature, "seed": config.seed, "validation": True}
        self._micro_batch = 1 if rollout.log_prob_use_dynamic_bsz else rollout.log_prob_micro_batch_size_per_gpu
        self._current: Mapping[str, Any] = {}
        self.begin()

    # ---- while the validation runs -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """A validation begins."""
        self._names: set[str] = set()
        self._rows: Rows = {}
        self._seconds = 0.0

    def watched(self, loader: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
        """`loader`, whose batches this recorder sees: only they say which prompt has which of verl's random names."""
        return _Watched(loader, self)

    def see(self, prompts: Mapping[str, Any]) -> None:
        """The prompts of the loader's current batch; verl adds their `uid` later."""
        self._current = prompts

    def collect(self, batch: KVBatchMeta) -> None:
        """Fetch the responses to the prompts that are still missing, before verl clears the queue."""
        names = self._new_names()
        place = {uid: number for number, uid in enumerate(names)}
        parts = [part for part in map(parts_of, batch.keys) if part[0] in names and part[1] < self._samples]
        parts.sort(key=lambda part: (place[part[0]], *part[1:]))
        if parts:
            started = time.monotonic()
            keys = [f"{uid}_{sample}_{output}" for uid, sample, output in parts]
            data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=FIELDS)
            columns = {name: data[name].unbind() for name in FIELDS}
            for row, (uid, sample, output) in enumerate(parts):
                own = {field: values[row].clone() for field, values in columns.items()}
                self._rows[f"{names[uid]}_{sample}_{output}"] = own
            self._seconds += time.monotonic() - started

    def _new_names(self) -> dict[str, str]:
        """verl's name -> ours, of the current batch's prompts that are to be recorded, in its order."""
        found: dict[str, str] = {}
        if self._prompts > 0:
            columns = (self._current[name] for name in ("uid", "data_source", "index"))
            for uid, data_source, index in zip(*columns, strict=True):
                name = prompt_name(data_source, int(index))
                if name not in self._names and len(self._names) < self._prompts:
                    self._names.add(name)
                    found[uid] = name
        return found

    # ---- until the pass ----------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether there are responses without statistics."""
        return bool(self._rows)

    def keep(self, executor: Executor, step: int) -> list[Future]:
        """Start to write what waits to its file; returns the write that is under way, if there is one."""
        self._step = step
        return [executor.submit(_save, waiting_path(self._directory, step), self._rows)] if self._rows else []

    def resume(self, step: int) -> None:
        """Read what waited at the checkpoint of `step`, if anything did."""
        file = waiting_path(self._directory, step)
        if self._prompts > 0 and file.exists():
            self._step, self._rows = step, _load(file)

    # ---- the pass ----------------------------------------------------------------------------------------------------

    def put(self, ranks: int) -> KVBatchMeta:
        """Put what waits into the queue, for a log-prob pass on `ranks` workers; `take` clears it.

        The shortest response fills the batch up until it can be divided.
        """
        self._started = time.monotonic()
        rows = dict(self._rows)
        shortest = min(rows.values(), key=lambda row: len(row["prompts"]) + len(row["responses"]))
        for number in range(-len(rows) % (ranks * self._micro_batch)):
            rows[f"filling_{number}_0"] = shortest
        sequences = [torch.cat([row["prompts"], row["responses"]]) for row in rows.values()]
        fields = _nested({name: [row[name] for row in rows.values()] for name in FIELDS if name != "rm_scores"})
        inputs = {"input_ids": sequences, "position_ids": [torch.arange(len(ids)) for ids in sequences]}
        fields.update(_nested({**inputs, "loss_mask": [row["response_mask"] for row in rows.values()]}))
        tags = [{"seq_len": len(ids)} for ids in sequences]
        tq.kv_batch_put(keys=[*rows], partition_id=PARTITION, fields=fields, tags=tags)
        about = {"temperature": self._about["temperature"], "calculate_entropy": True, "compute_loss": False}
        extra = {**about, RECORDED: True, "trainer_step": self._step}
        return KVBatchMeta(keys=[*rows], tags=tags, partition_id=PARTITION, extra_info=extra)

    def take(
        self, batch: KVBatchMeta, vocab_size: int, tokenizer: Any, executor: Executor
    ) -> tuple[float, list[Future]]:
        """After the pass: fetch the statistics, clear the queue, and start to write the record.

        Args:
            batch: what `put` returned.
            vocab_size: of the policy.
            tokenizer: the policy's.
            executor: writes the record.

        Returns:
            Seconds that the trainer spent on this record, the pass included; the write that is under way.
        """
        keys = [*self._rows]
        names = ["prompts", "responses", *OUTPUT_NAMES]
        data = tq.kv_batch_get(keys=keys, partition_id=PARTITION, select_fields=names)
        tq.kv_clear(keys=batch.keys, partition_id=PARTITION)
        statistics = response_statistics(data, data, vocab_size)
        outcome = _nested({name: [row[name] for row in self._rows.values()] for name in FIELDS})
        responses = tuple(recorded(keys, statistics, outcome, tokenizer))
        record = TokenRecord(step=self._step, vocab_size=vocab_size, responses=responses, **self._about)
        seconds = self._seconds + time.monotonic() - self._started
        self.begin()
        return seconds, [executor.submit(_finish, self._directory, record)]


class _Watched:
    """A data loader whose current batch a recorder knows."""

    def __init__(self, loader: Iterable[Mapping[str, Any]], recorder: ValidationRecorder) -> None:
        self._loader, self._recorder = loader, recorder

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for prompts in self._loader:
            self._recorder.see(prompts)
            yield prompts


def _nested(columns: Mapping[str, list[torch.Tensor]]) -> TensorDict:
    """Columns of rows of different lengths."""
    nested = {name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for name, rows in columns.items()}
    return TensorDict(nested, batch_size=len(next(iter(columns.values()))))


def _save(file: Path, rows: Rows) -> None:
    with atomic_write(file) as partial:
        torch.save(rows, partial)


def _load(file: Path) -> Rows:
    try:
        return torch.load(file, weights_only=True)
    except Exception as error:  # a damaged file fails in the unpickler in many ways
        raise UserError(
            f"{file}: cannot be read ({type(error).__name__}: {error}): delete it; that validation will have no record"
        ) from None


def _finish(directory: Path, record: TokenRecord) -> Path:
    """Write a record; what waited for it is then no longer needed."""
    file = write(directory, record)
    waiting_path(directory, record.step).unlink(missing_ok=True)
    return file
