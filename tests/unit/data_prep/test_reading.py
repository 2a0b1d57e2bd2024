"""Reading files: what a row is and where it is, and that one bad row does not hide the others."""

import hashlib
import json
import math
import os
import re
import tempfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.reading import Fault, InputError, Record, _commit, _hub, open_source

BAD_UTF8 = b"caf\xe9"


def rows_of(path, split="train"):
    return list(open_source(path, split, "owner/name").rows())


def test_jsonl_lines_are_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"Problem": "a\xe2\x80\xa8b"}\r\n'  # a byte order mark; U+2028 ends no line
        b"\n"
        b'{"Problem": "half\n'
        b"[1, 2]\n"
        b"17\n" + b'{"Problem": "' + BAD_UTF8 + b'"}\n' + b"[" * 100_000 + b"\n" + b"9" * 5_000 + b"\n"
        b'{"Problem": NaN}'
    )
    got = rows_of(path)
    assert got[0] == Record("a.jsonl, line 1", {"problem": "a\u2028b"})
    assert str(got[1]) == "a.jsonl, line 3: is not JSON (Unterminated string starting at: character 13)"
    assert got[2:4] == [
        Fault("a.jsonl, line 4", None, "list instead of an object with named fields"),
        Fault("a.jsonl, line 5", None, "int instead of an object with named fields"),
    ]
    assert got[4] == Record("a.jsonl, line 6", {"problem": "caf\udce9"})
    assert [(fault.where, fault.problem[:13]) for fault in got[5:7]] == [
        ("a.jsonl, line 7", "is not JSON ("),
        ("a.jsonl, line 8", "is not JSON ("),
    ]
    assert got[7].where == "a.jsonl, line 9" and got[7].values["problem"] != got[7].values["problem"]
    assert len(got) == 8
    assert str(got[2]) == "a.jsonl, line 4: list instead of an object with named fields"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"a": 1}, {"a": 2}]', [1, 2]),
        (b'{"data": [{"a": 1}]}', [1]),
        (b'{"a": 1, "data": "not rows"}', [1]),
        (b'{"a": 1}\n{"a": 2}\n', [1, 2]),
    ],
)
def test_json_shapes(tmp_path, content, expected):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert [row.values["a"] for row in rows_of(path)] == expected


def test_json_rows_are_counted_from_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": "' + BAD_UTF8 + b'"}, 3]')
    assert rows_of(path) == [
        Record("a.json, row 1", {"a": "caf\udce9"}),
        Fault("a.json, row 2", None, "int instead of an object with named fields"),
    ]


@pytest.mark.parametrize("content", [b"", b'[{"a": 1}', b'[{"a": 1}]\n{"a": 2}', b"3", b"[" * 100_000])
def test_json_that_is_no_table(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a.json: "):
        rows_of(path)


def test_csv(tmp_path):
    path = tmp_path / "a.csv"
    huge = b"x" * 200_000
    path.write_bytes(
        b"Problem,Answer\n"
        b'"two\nlines, and a ""quote""",2\n'  # lines 2 and 3
        b"only one\n"
        b"1,2,3\n"
        b"\n" + BAD_UTF8 + b",5\n" + huge + b",6\n"
        b'"closed"wrong,7\n'
        b"8,8\n"
        b'"never closed,9\n10,10\n'
    )
    got = rows_of(path)
    assert got == [
        Record("a.csv, line 2", {"problem": 'two\nlines, and a "quote"', "answer": "2"}),
        Fault("a.csv, line 4", None, "has 1 cell under 2 column names: put text with a comma in double quotes"),
        Fault("a.csv, line 5", None, "has 3 cells under 2 column names: put text with a comma in double quotes"),
        Record("a.csv, line 7", {"problem": "caf\udce9", "answer": "5"}),
        Record("a.csv, line 8", {"problem": huge.decode(), "answer": "6"}),
        Fault("a.csv, line 9", None, "is not CSV (',' expected after '\"')"),
        Record("a.csv, line 10", {"problem": "8", "answer": "8"}),
        Fault("a.csv, line 11", None, "is not CSV (unexpected end of data); the lines up to 12 are lost, too"),
    ]
    path.write_bytes(b"")
    assert rows_of(path) == []


def test_a_column_that_is_there_twice(tmp_path):
    """One of the two would be lost, and with it perhaps the right answer."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1, "b": 2, "A": 3}\n{"a": 4}\n')
    twice = Fault("a.jsonl, line 1", "A", "occurs twice in different case, and it is not known which one is right")
    assert rows_of(path) == [twice, Record("a.jsonl, line 2", {"a": 4})]
    (tmp_path / "a.csv").write_text("a,b,A,,\n1,2,3,4,5\n")
    with pytest.raises(InputError, match="a.csv: has two columns 'A'; remove one of them"):
        rows_of(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("a,b,,\n1,2,4,5\n")
    assert rows_of(tmp_path / "a.csv") == [Record("a.csv, line 2", {"a": "1", "b": "2", "": "5"})]
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a.parquet: has two columns a; remove one of them"):
        rows_of(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
@pytest.mark.parametrize(
    "encoding, found",
    [
        ("utf-16", "it is UTF-16, not UTF-8; convert it (iconv -f UTF-16 -t UTF-8 a{} > NEW{})"),
        ("utf-32", "it is UTF-32, not UTF-8; convert it (iconv -f UTF-32 -t UTF-8 a{} > NEW{})"),
        ("utf-16-le", "it begins with null bytes, as UTF-16 does, not UTF-8; "),
        ("utf-16-be", "it begins with null bytes, as UTF-16 does, not UTF-8; "),
    ],
)
def test_other_encodings(tmp_path, suffix, encoding, found):
    path = tmp_path / f"a{suffix}"
    path.write_text('{"a": "caf\u00e9"}\n' if suffix != ".csv" else "a\ncaf\u00e9\n", encoding=encoding)
    with pytest.raises(InputError, match=re.escape(f"{path}: " + found.format(suffix, suffix))):
        rows_of(path)


def test_a_name_that_is_twice_in_a_json_object(tmp_path):
    """json keeps the last one in silence."""
    rows = ['{"a": 1}', '{"a": 1, "b": 2, "a": 3}', '{"a": {"c": 1, "c": 2}}', '{"a": [{"d": 1, "d": 1}]}']
    end = "occurs twice in one JSON object, and it is not known which one is right"
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    assert rows_of(tmp_path / "a.jsonl") == [
        Record("a.jsonl, line 1", {"a": 1}),
        *(Fault(f"a.jsonl, line {line}", name, end) for line, name in ((2, "a"), (3, "c"), (4, "d"))),
    ]
    (tmp_path / "a.json").write_text(f'{{"data": [{", ".join(rows)}]}}')
    assert rows_of(tmp_path / "a.json") == [
        Record("a.json, row 1", {"a": 1}),
        *(Fault(f"a.json, row {row}", name, end) for row, name in ((2, "a"), (3, "c"), (4, "d"))),
    ]
    (tmp_path / "a.json").write_text('{"data": [{"a": 1}], "data": [{"a": 2}]}')
    with pytest.raises(InputError, match="a.json: data occurs twice"):
        rows_of(tmp_path / "a.json")


def test_parquet_dates_beyond_python(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1, 2], "made": pa.array([0, 2**62], pa.timestamp("us"))}), path)
    first, second = rows_of(path)
    assert first.values["a"] == 1
    assert (second.where, second.field) == ("a.parquet, row 2", "made")
    assert second.problem.startswith("cannot be read (")


def test_a_file_name_that_is_not_utf_8(tmp_path):
    path = tmp_path / os.fsdecode(BAD_UTF8 + b".jsonl")
    put(path, 1)
    with pytest.raises(InputError, match=r"caf\\udce9.jsonl': the file name is not UTF-8; rename it"):
        open_source(path, "train", "owner/name")


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    bad = pa.Array.from_buffers(  # a string column is not checked when it is written
        pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\5\0\0\0\6\0\0\0"), pa.py_buffer(b"a" + BAD_UTF8 + b"c")]
    )
    pq.write_table(pa.table({"ID": [1, 2, 3], "Problem": bad}), path)
    assert rows_of(path) == [
        Record("a.parquet, row 1", {"id": 1, "problem": "a"}),
        Fault("a.parquet, row 2", "Problem", "bytes that are not UTF-8: save the text as UTF-8"),
        Record("a.parquet, row 3", {"id": 3, "problem": "c"}),
    ]
    pd.DataFrame({"a": range(2500)}).to_parquet(path)  # several batches
    assert [row.where for row in rows_of(path)][1999:2001] == ["a.parquet, row 2000", "a.parquet, row 2001"]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="a.parquet: is not a readable parquet file"):
        rows_of(path)


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"a": value}) + "\n")


def test_folders(tmp_path):
    # MATH as first published: a file for each problem.
    put(tmp_path / "math" / "train" / "algebra" / "1.json", 1)
    put(tmp_path / "math" / "train" / "geometry" / "1.json", 2)
    put(tmp_path / "math" / "test" / "algebra" / "1.json", 3)
    (tmp_path / "math" / "README.md").write_text("about")
    train = rows_of(tmp_path / "math", "train")
    assert [row.values["a"] for row in train] == [1, 2]
    assert [row.where for row in train] == ["train/algebra/1.json, row 1", "train/geometry/1.json, row 1"]
    assert [row.values["a"] for row in rows_of(tmp_path / "math", "test")] == [3]
    # A download from the hub; a benchmark's only split may be called train.
    put(tmp_path / "hub" / "data" / "train-00000-of-00002.jsonl", 1)
    put(tmp_path / "hub" / "data" / "train-00001-of-00002.jsonl", 2)
    put(tmp_path / "hub" / "dataset_infos.json", 9)
    assert [row.values["a"] for row in rows_of(tmp_path / "hub", "test")] == [1, 2]
    with pytest.raises(InputError, match="hub: has files of the split train and none of test; pass"):
        open_source(tmp_path / "hub", "test")
    put(tmp_path / "hub" / "more.csv", 3)
    with pytest.raises(InputError, match="hub: contains data files of several types; give one file,"):
        rows_of(tmp_path / "hub")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: contains no data file"):
        rows_of(tmp_path / "empty")


def test_splits_of_a_folder_have_several_names(tmp_path):
    for value, name in enumerate(("training", "dev", "other", "eval/a")):
        put(tmp_path / f"{name}.jsonl", value)
    wanted = (("train", "training.jsonl", 0), ("validation", "dev.jsonl", 1), ("test", "eval/a.jsonl", 3))
    for split, file, value in wanted:
        source = open_source(tmp_path, split)
        assert (source.part, [row.values["a"] for row in source.rows()]) == (file, [value])
    (tmp_path / "dev.jsonl").unlink()
    with pytest.raises(InputError, match="has files of the split test, train and none of validation; pass"):
        open_source(tmp_path, "validation", "owner/name")
    for number in range(8):
        put(tmp_path / "plain" / f"{number}.jsonl", number)
    source = open_source(tmp_path / "plain", "train")
    assert source.part == "0.jsonl, 1.jsonl, 2.jsonl, 3.jsonl, 4.jsonl and 3 more" and len([*source.rows()]) == 8
    assert open_source(tmp_path / "plain" / "0.jsonl", "test").part == ""


def test_float32_has_its_own_decimals(tmp_path):
    """0.1 as float32 is not the 0.10000000149011612 that it is as float64: it was written as 0.1."""
    columns = {
        "a": pa.array([0.1, None, 142.0], pa.float32()),
        "b": pa.array([[0.2, 1e-7], [], None], pa.list_(pa.float32())),
        "c": pa.array([{"x": 0.7}, None, {"x": math.inf}], pa.struct({"x": pa.float32()})),
        "d": pa.array([0.1 + 0.2, 1, 2]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert [row.values for row in rows_of(tmp_path / "a.parquet")] == [
        {"a": 0.1, "b": [0.2, 1e-7], "c": {"x": 0.7}, "d": 0.1 + 0.2},
        {"a": None, "b": [], "c": None, "d": 1.0},
        {"a": 142.0, "b": None, "c": {"x": math.inf}, "d": 2.0},
    ]


def test_origin_names_the_files_and_their_checksums(tmp_path):
    path = tmp_path / "a.jsonl"
    put(path, 1)
    source = open_source(path, "train", "owner/name")
    content = path.read_bytes()
    assert source.origin == {
        "path": str(path),
        "files": [{"path": str(path), "bytes": 9, "sha256": hashlib.sha256(content).hexdigest()}],
    }


def test_inputs_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"a\.jsonl: does not exist, and is not a hub id"):
        open_source("somewhere/a.jsonl", "train", "owner/name")
    with pytest.raises(InputError, match="does not exist, and is not a hub id"):
        open_source(tmp_path / "absent", "train", "owner/name")
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(InputError, match=r"a\.xlsx: unknown file type; must be one of \.parquet, \.jsonl"):
        open_source(tmp_path / "a.xlsx", "train", "owner/name")
    put(tmp_path / "a.jsonl", 1)
    with pytest.raises(InputError, match="a local input, which has no revision; leave out --revision"):
        open_source(tmp_path / "a.jsonl", "train", "owner/name", revision="main")
    with pytest.raises(InputError, match="a local input, which has no configuration; leave out --config"):
        open_source(tmp_path / "a.jsonl", "train", config="nonsense")
    named = open_source(tmp_path / "a.jsonl", "train", "owner/name", config="main")
    assert len([*named.rows()]) == 1, "the configuration of a named set is that of its hub id"


def test_hub_loader_on_a_folder_that_it_can_reach(tmp_path, monkeypatch):
    """`datasets` reads a folder under the name of a hub data set: all of the loading is real but the network."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "hub"
    put(folder / "train.jsonl", 1)
    source = _hub(str(folder), None, None, "test")
    assert [row.values for row in source.rows()] == [{"a": 1}]
    assert [row.where for row in source.rows()] == [f"{folder}, row 1"]
    assert source.origin == {
        "hub_id": str(folder),
        "config": "default",
        "revision": None,
        "commit": None,
        "split": "train",
    }
    put(folder / "validation.jsonl", 2)
    with pytest.raises(InputError, match="has no split 'test', only train, validation; pass the right file"):
        _hub(str(folder), None, None, "test")


def test_commit_of_a_hub_data_set():
    commit = "2fe88a2f1091d5048c0f36abc874fb997b3dd99a"
    folder = "/home/a/.cache/huggingface/datasets/HuggingFaceH4___aime_2024/default/0.0.0"
    assert _commit([f"{folder}/{commit}/aime_2024-train.arrow"]) == commit
    assert _commit([f"{folder}/{commit[:-1]}/aime_2024-train.arrow"]) is None
    assert _commit([]) is None


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([".jsonl", ".json", ".csv"]), st.binary(max_size=60) | st.text('[]{}",:\n1a\\u', max_size=40))
def test_any_bytes_are_rows_faults_or_one_sentence(suffix, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            rows = rows_of(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and "; " in str(error)
        else:
            assert all(row.where.startswith(f"a{suffix}, ") for row in rows)
