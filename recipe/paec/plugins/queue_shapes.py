"""TransferQueue's record of the shapes of rows: computed from the lengths, and not copied row by row."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from transfer_queue import metadata
from transfer_queue.storage.managers import simple_storage_manager

from recipe.paec.actor import jagged
from recipe.paec.plugins import patches

SHAPES = "per_sample_shapes"
"""What a field's schema calls the shapes of a jagged field's rows."""


def shapes_from_offsets() -> None:
    """TransferQueue takes a jagged field apart into its rows four times a put, to list their shapes."""

    def make(original: Callable) -> Callable:
        @functools.wraps(original)
        def extract_field_schema(data):
            fields = {key: value for key, value in data.items() if jagged.is_jagged(value)} if len(data) else {}
            found = original(data.exclude(*fields)) | {key: jagged.schema(value) for key, value in fields.items()}
            return {key: found[key] for key in data.keys() if key in found}

        return extract_field_schema

    for module in (metadata, simple_storage_manager):
        patches.replace_name(module, "extract_field_schema", make)


def shapes_not_copied() -> None:
    """TransferQueue copies the shapes of all rows of a batch, one by one, for every part of it and choice of fields."""

    def shapes_of(meta: Any) -> dict[str, list]:
        return {name: field[SHAPES] for name, field in meta.field_schema.items() if field.get(SHAPES) is not None}

    def without(meta: Any, fields: dict[str, list]) -> Any:
        light = copy.copy(meta)
        light.field_schema = dict(meta.field_schema) | {
            name: {**meta.field_schema[name], SHAPES: None} for name in fields
        }
        return light

    def of_samples(original: Callable) -> Callable:
        @functools.wraps(original)
        def select_samples(self, sample_indices):
            fields = shapes_of(self)
            found = original(without(self, fields), sample_indices)
            for name, shapes in fields.items():
                found.field_schema[name][SHAPES] = [shapes[place] for place in sample_indices]
            return found

        return select_samples

    def of_fields(original: Callable) -> Callable:
        @functools.wraps(original)
        def select_fields(self, field_names):
            fields = shapes_of(self)
            found = original(without(self, fields), field_names)
            for name in fields.keys() & found.field_schema.keys():
                found.field_schema[name][SHAPES] = [*fields[name]]
            return found

        return select_fields

    patches.replace_name(metadata.BatchMeta, "select_samples", of_samples)
    patches.replace_name(metadata.BatchMeta, "select_fields", of_fields)
