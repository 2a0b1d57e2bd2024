"""Rows of a published data set, from a local file or folder or from the Hugging Face hub, one at a time.

A row that cannot be read becomes a `Fault` and reading continues, so that one run reports every bad row. Text is
decoded with `surrogateescape`: bytes that are not UTF-8 survive as lone surrogates in exactly the field that held
them, where `data_prep.sets` names them. Column names are lower-cased.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.files import sha256
from data_prep.progress import quiet_hub

SPLITS = ("train", "test", "validation")
_ALSO_NAMED = {
    **dict.fromkeys(("dev", "val", "valid"), "validation"),
    **dict.fromkeys(("eval", "testing"), "test"),
    "training": "train",
}
"""Other words for a split in the names of files."""

_BATCH = 1000
_SHOWN = 5
"""Names of files in a message."""
_NOT_DATA = ("dataset_info.json", "dataset_infos.json")  # the hub's metadata next to the data
_OTHER_ENCODINGS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class InputError(ValueError):
    """An input cannot be used at all, or an output must not be written; one sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row. where: file and row as a user counts them (lines of JSONL and CSV, else rows, from 1)."""

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one row, in one of its fields; or with all of it, if `field` is None."""

    where: str
    field: str | None
    problem: str

    def __str__(self) -> str:
        return f"{self.where}{f', field {self.field}' if self.field is not None else ''}: {self.problem}"


@dataclass(frozen=True)
class Source:
    """An input that was found. origin: what identifies it, for the manifest; rows: reads it; part: what it reads of a
    folder or hub data set."""

    name: str
    origin: Mapping[str, Any]
    rows: Callable[[], Iterator[Record | Fault]]
    part: str


def open_source(
    name: str | Path | None,
    split: str,
    hub_id: str | None = None,
    config: str | None = None,
    revision: str | None = None,
) -> Source:
    """Find an input.

    Args:
        name: a local file or folder, a hub id, or None for the set's own hub id `hub_id`.
        split: split of the hub data set, or of a folder. A named set (one with a `hub_id`) may have a single split
            under another name, as benchmarks are published.
        hub_id, config: where the set is published by default; `config` belongs to that id, or to `name` without one.
        revision: revision of the hub data set, None for its newest.

    Raises:
        InputError: the file does not exist, its type is unknown, or the hub cannot be reached.
    """
    if name is not None and Path(name).exists():
        if revision is not None:
            raise InputError(f"{name}: is a local input, which has no revision; leave out --revision")
        if config is not None and hub_id is None:
            raise InputError(f"{name}: is a local input, which has no configuration; leave out --config")
        return _local(Path(name), split, named=hub_id is not None)
    if name is not None and (not _HUB_ID.fullmatch(str(name)) or Path(name).suffix in _READERS):
        raise InputError(f"{name}: does not exist, and is not a hub id of the form owner/name; correct --input")
    if hub_id is not None and (name is None or str(name) == hub_id):
        return _hub(hub_id, config, revision, split)
    return _hub(str(name), None if hub_id else config, revision, split)


def _local(path: Path, split: str, named: bool) -> Source:
    files = _data_files(path, split, named) if path.is_dir() else [path]
    for file in files:
        if file.suffix not in _READERS:
            raise InputError(f"{file}: unknown file type; must be one of {', '.join(_READERS)}")
    origin = {
        "path": str(path),
        "files": [{"path": str(file), "bytes": file.stat().st_size, "sha256": sha256(file)} for file in files],
    }
    # MATH as first published has an algebra/1.json and a geometry/1.json.
    names = {file: str(file.relative_to(path)) if path.is_dir() else file.name for file in files}
    for file in files:
        if re.search("[\ud800-\udfff]", str(file)):  # it goes into every row and into the manifest
            raise InputError(f"{str(file)!r}: the file name is not UTF-8; rename it")
    return Source(
        str(path),
        origin,
        lambda: (row for file in files for row in _READERS[file.suffix](file, names[file])),
        _listed([names[file] for file in files]) if path.is_dir() else "",
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def _data_files(folder: Path, split: str, named: bool) -> list[Path]:
    files = [f for f in sorted(folder.rglob("*")) if f.suffix in _READERS and f.is_file() and f.name not in _NOT_DATA]
    if not files:
        raise InputError(f"{folder}: contains no data file; give a folder with files of type {', '.join(_READERS)}")
    if len({file.suffix for file in files}) > 1:
        raise InputError(f"{folder}: contains data files of several types; give one file, such as {files[0]}")
    # Names such as train-00000-of-00001.parquet, or MATH's folders train/ and test/.
    words = {file: re.split(r"[^a-z]+", str(file.relative_to(folder)).lower()) for file in files}
    splits = {file: {_ALSO_NAMED.get(word, word) for word in words[file]} & {*SPLITS} for file in files}
    found = set().union(*splits.values())
    if not found or (named and len(found) == 1):
        return files
    if split not in found:
        raise InputError(
            f"{folder}: has files of the split {', '.join(sorted(found))} and none of {split}; pass the right file "
            "with --input FILE"
        )
    return [file for file in files if split in splits[file]]


def _record(where: str, values: Any) -> Record | Fault:
    if not isinstance(values, Mapping):
        return Fault(where, None, f"{type(values).__name__} instead of an object with named fields")
    if isinstance(values, _Doubled):
        return Fault(where, values.name, "occurs twice in one JSON object, and it is not known which one is right")
    lowered = {str(key).lower(): value for key, value in values.items()}
    if len(lowered) < len(values):
        return Fault(
            where, _twice(values) or "row", "occurs twice in different case, and it is not known which one is right"
        )
    return Record(where, lowered)


class _Doubled(dict):
    """A JSON object with a repeated name, or with a nested object that has one."""

    def __init__(self, pairs: list[tuple[str, Any]], name: str, own: bool) -> None:
        super().__init__(pairs)
        self.name, self.own = name, own


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """json's `object_pairs_hook`: records a repeated name, of which json would drop the first."""
    plain = dict(pairs)
    if len(plain) < len(pairs):
        names = [name for name, _ in pairs]
        return _Doubled(pairs, next(name for name in names if names.count(name) > 1), own=True)
    for value in plain.values():
        inside = value if isinstance(value, list) else [value]
        if doubled := next((v for v in inside if isinstance(v, _Doubled)), None):
            return _Doubled(pairs, doubled.name, own=False)
    return plain


def _check_encoding(path: Path) -> None:
    """InputError for text in another encoding than UTF-8, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(4)
    mark = next((mark for mark in _OTHER_ENCODINGS if start.startswith(mark)), None)
    if mark is None and b"\0" not in start:
        return
    name = _OTHER_ENCODINGS.get(mark, "UTF-16")
    found = f"it is {name}" if mark else "it begins with null bytes, as UTF-16 does"
    raise InputError(
        f"{path}: {found}, not UTF-8; convert it (iconv -f {name} -t UTF-8 {path.name} > NEW{path.suffix}) or save it "
        "as UTF-8"
    )


def _twice(names: Iterable[str]) -> str | None:
    """The first repeated name, ignoring case; one of the two columns would be lost."""
    seen = set()
    for name in map(str, names):
        if name.lower() in seen:
            return name
        seen.add(name.lower())
    return None


def _read_parquet(path: Path, name: str) -> Iterator[Record | Fault]:
    number = 0
    try:
        file = pq.ParquetFile(path)
        if twice := _twice(file.schema_arrow.names):
            raise InputError(f"{path}: has two columns {twice}; remove one of them")
        for batch in file.iter_batches(_BATCH):
            for values in _batch_rows(_decimals_as_written(batch)):
                number += 1
                where = f"{name}, row {number}"
                yield Fault(where, *values) if isinstance(values, tuple) else _record(where, values)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is not a readable parquet file ({error}); download it again") from error


def _decimals_as_written(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with float32 as the float64 of its shortest decimals: 0.1, not 0.10000000149011612."""
    wanted = [_with_floats(field.type, pa.float64()) for field in batch.schema]
    columns = [
        column if kind == column.type else column.cast(_with_floats(column.type, pa.string())).cast(kind)
        for kind, column in zip(wanted, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _with_floats(kind: pa.DataType, wanted: pa.DataType) -> pa.DataType:
    """A type with `wanted` in place of float32, within lists and named fields too."""
    if pa.types.is_float32(kind):
        return wanted
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_with_floats(kind.value_type, wanted)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_with_floats(field.type, wanted)) for field in kind])
    return kind


def _batch_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Rows of a batch; in place of one that cannot be decoded its first bad column and what is wrong there."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):  # not UTF-8; a date that Python does not have
        for i in range(batch.num_rows):
            values: dict[str, Any] = {}
            for field, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    values[field] = column[i].as_py()
                except UnicodeDecodeError:
                    yield field, "bytes that are not UTF-8: save the text as UTF-8"
                    break
                except (ValueError, OverflowError) as error:
                    yield field, f"cannot be read ({error})"
                    break
            else:
                yield values


def _read_jsonl(path: Path, name: str) -> Iterator[Record | Fault]:
    _check_encoding(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").strip()
            if not text:
                continue
            where = f"{name}, line {number}"
            try:
                values = json.loads(text, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                # Its own text counts the characters of "line 1", which is the line of the file that `where` names.
                known = isinstance(error, json.JSONDecodeError)
                reason = f"{error.msg}: character {error.colno}" if known else error
                yield Fault(where, None, f"is not JSON ({reason})")
            else:
                yield _record(where, values)


def _read_json(path: Path, name: str) -> Iterator[Record | Fault]:
    _check_encoding(path)
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    try:
        values = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        # Several objects: the hub also names JSON lines .json. After an array it is garbage.
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            yield from _read_jsonl(path, name)
            return
        raise InputError(f"{path}: is not JSON ({error}); correct it, or download it again") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); correct it, or download it again") from error
    if isinstance(values, Mapping):
        # {"data": [...]}, or a single row: MATH as first published has a file for each problem.
        if isinstance(values.get("data"), list):
            if isinstance(values, _Doubled) and values.own:
                raise InputError(f"{path}: {values.name} occurs twice in its JSON object; remove one of them")
            values = values["data"]
        else:
            values = [values]
    if not isinstance(values, list):
        raise InputError(f'{path}: is a JSON {type(values).__name__}; must be an array of rows or {{"data": [...]}}')
    for number, row in enumerate(values, 1):
        yield _record(f"{name}, row {number}", row)


def _read_csv(path: Path, name: str) -> Iterator[Record | Fault]:
    _check_encoding(path)
    csv.field_size_limit(1 << 30)  # the default limit is 128 KiB; data_prep.sets has the real one
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}: the column names are not CSV ({error}); correct the first line") from error
        if header is None:
            return
        if twice := _twice(filter(None, header)):  # a spreadsheet's empty columns have no names
            raise InputError(f"{path}: has two columns {twice!r}; remove one of them")
        while True:
            start = reader.line_num + 1
            where = f"{name}, line {start}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # An unclosed quote swallows the following lines.
                until = f"; the lines up to {reader.line_num} are lost, too" if reader.line_num > start else ""
                yield Fault(where, None, f"is not CSV ({error}){until}")
                continue
            if len(cells) == len(header):
                yield _record(where, dict(zip(header, cells, strict=True)))
            elif cells:
                found = f"{len(cells)} cell{'s' * (len(cells) != 1)} under {len(header)} column names"
                yield Fault(where, None, f"has {found}: put text with a comma in double quotes")


_READERS: dict[str, Callable[[Path, str], Iterator[Record | Fault]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
}


def _hub(name: str, config: str | None, revision: str | None, split: str) -> Source:
    import datasets  # takes over a second to import, only needed for the hub

    quiet_hub()
    try:
        loaded = datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # the library, its HTTP client and its file formats each have exceptions of their own
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{name}: is neither a local file nor a hub data set that can be loaded "
            f"({type(error).__name__}: {reason[0] if reason else ''}); "
            "check the name, the network and HF_HUB_OFFLINE, or pass a local copy with --input FILE"
        ) from error
    # Benchmarks are published under any split name; with a single split it is clear which is meant.
    if split not in loaded and len(loaded) > 1:
        raise InputError(
            f"{name}: has no split {split!r}, only {', '.join(loaded)}; pass the right file with --input FILE"
        )
    data = loaded[split if split in loaded else next(iter(loaded))]
    origin = {
        "hub_id": name,
        "config": data.info.config_name,
        "revision": revision,
        "commit": _commit([file["filename"] for file in data.cache_files]),
        "split": str(data.split),
    }
    return Source(
        name,
        origin,
        lambda: (_record(f"{name}, row {i}", row) for i, row in enumerate(data, 1)),
        f"the split {data.split}",
    )


def _commit(cache_files: Iterable[str]) -> str | None:
    # The library keeps a hub data set in a cache folder that is named after the commit.
    found = (re.search(r"/([0-9a-f]{40})/[^/]*$", file) for file in cache_files)
    return next((match[1] for match in found if match), None)
