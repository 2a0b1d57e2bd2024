"""Hashes of the files of a task that a run reads."""

from __future__ import annotations

import shutil
from hashlib import sha256

from recipe.lab.task_files import hashes_of


def test_what_the_laboratory_reads(small, tmp_path):
    task = tmp_path / "task"
    shutil.copytree(small().task, task)
    for name in ("model/README.md", "model/.hidden", "data/test.parquet"):
        (task / name).write_text("not read")
    found = hashes_of(task)
    assert sorted(found) == [
        *("data/train.parquet", "data/validation.parquet", "data/warm_start.jsonl", "model/chat_template.jinja"),
        *("model/config.json", "model/generation_config.json", "model/model.safetensors", "model/tokenizer.json"),
        "model/tokenizer_config.json",
    ]
    assert found == {name: sha256((task / name).read_bytes()).hexdigest() for name in found}
    assert found == small().task_files == hashes_of(task)
    (task / "data" / "train.parquet").write_bytes(b"other")
    assert hashes_of(task) == {**found, "data/train.parquet": sha256(b"other").hexdigest()}
