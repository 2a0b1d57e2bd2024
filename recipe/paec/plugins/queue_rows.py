"""A field of many responses on its way to TransferQueue's storage and back: one frame for all of its rows.

TransferQueue sends every row in a frame of its own: 128 responses with nine fields are 1,152 frames each way, handled
one by one in two sockets and a thread between them. Here the rows of a field are joined, sent as one tensor, and taken
apart where they arrive. What is stored and what is returned is the same, bit for bit. While it takes a message apart, a
storage unit holds it twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager
from transfer_queue.storage.simple_storage import StorageUnitData
from transfer_queue.utils import serial_utils

from recipe.paec.actor.jagged import is_jagged
from recipe.paec.plugins import patches

LARGEST_ROW = 2**17
"""Bytes of the mean row up to which rows are joined. Copying longer ones costs about what their frames cost."""


class Rows:
    """The rows of one field; whoever receives them has a list of tensors.

    Args:
        values: all rows one after the other, [sum of lengths, ...]; without `lengths` a row is one entry, [rows, ...].
        lengths: entries of each row.
        receive: `stored` or `fetched`, which makes the list.
    """

    def __init__(self, values: torch.Tensor, lengths: list[int] | None, receive: Callable[..., list[torch.Tensor]]):
        self.values, self.lengths, self.receive = values, lengths, receive

    def __reduce__(self) -> tuple:
        # TransferQueue pickles what it does not know, while it collects the frames of the tensors that it does know.
        if serial_utils._encoder_aux_buffers.get() is None:  # it pickles the whole message: some number is too large
            return list, ([row.clone() for row in _apart(self.values, self.lengths)],)
        return self.receive, (serial_utils._encoder._encode_regular_tensor_meta(self.values), self.lengths)


def stored(tensor: tuple, lengths: list[int] | None) -> list[torch.Tensor]:
    """The rows that a storage unit has received, each with memory of its own: they are freed and saved one by one.

    A storage unit is a process of Ray's, which loads no plugin; its first rows tell it to answer in the same way.
    """
    answers_in_one_frame()
    return [row.clone() for row in fetched(tensor, lengths)]


def fetched(tensor: tuple, lengths: list[int] | None) -> list[torch.Tensor]:
    """The rows that a storage unit has sent."""
    return _apart(serial_utils._decoder._decode_tensor(tensor), lengths)


def _apart(values: torch.Tensor, lengths: list[int] | None) -> list[torch.Tensor]:
    return list(values.unbind() if lengths is None else values.split(lengths))


def to_store(field: Any, places: Sequence[int]) -> Rows | None:
    """The rows `places` of a jagged field; None for long rows and other fields, which TransferQueue sends itself."""
    if not is_jagged(field) or field.values().nbytes > LARGEST_ROW * len(field):
        return None
    offsets = field.offsets()
    values, lengths = field.values()[offsets[0] : offsets[-1]], offsets.diff().tolist()
    if list(places) != [*range(len(lengths))]:
        rows = values.split(lengths)
        values, lengths = torch.cat([rows[place] for place in places]), [lengths[place] for place in places]
    return Rows(values, lengths, stored)


def to_fetch(values: Any) -> Rows | None:
    """Tensors as one, if they agree in all but their first size and are not long; else None."""
    if not isinstance(values, list) or not values or not all(isinstance(one, torch.Tensor) for one in values):
        return None
    if any(one.is_nested or one.layout != torch.strided or _kind(one) != _kind(values[0]) for one in values):
        return None
    if sum(one.nbytes for one in values) > LARGEST_ROW * len(values):
        return None
    if values[0].dim() == 0:
        return Rows(torch.stack(values), None, fetched)
    return Rows(torch.cat(values), [len(one) for one in values], fetched)


def _kind(tensor: torch.Tensor) -> tuple:
    """What tensors must have in common to be joined."""
    return tensor.device, tensor.dtype, tensor.dim(), tensor.shape[1:]


def rows_in_one_frame() -> None:
    """TransferQueue puts every row of a jagged field into a message frame of its own."""

    def make(original: Callable) -> Callable:
        def select_by_positions(field_data, positions):
            rows = to_store(field_data, positions)
            return original(field_data, positions) if rows is None else rows

        return staticmethod(select_by_positions)

    patches.replace_name(AsyncSimpleStorageManager, "_select_by_positions", make)


@functools.cache
def answers_in_one_frame() -> None:
    """Make this process's storage unit send a field's rows in one frame; applied once."""

    def make(original: Callable) -> Callable:
        @functools.wraps(original)
        def get_data(self, fields, global_indexes):
            found = original(self, fields, global_indexes)
            if self.ssd_offload_enabled:  # its own get_data goes on with these lists
                return found
            return {field: to_fetch(values) or values for field, values in found.items()}

        return get_data

    patches.replace_name(StorageUnitData, "get_data", make)
