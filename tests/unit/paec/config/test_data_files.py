"""Data files with names that `datasets` would read as patterns, relative ones, and those of the home folder."""

from __future__ import annotations

import shutil

import pytest
from omegaconf import OmegaConf

from recipe.paec.config.data_files import use_absolute_files


def used(train, validation) -> tuple[list[str], list[str]]:
    config = OmegaConf.create({"data": {"train_files": train, "val_files": validation}})
    use_absolute_files(config)
    return list(config.data.train_files), list(config.data.val_files)


def test_files_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/a")
    assert used("train.parquet", ["~/b.parquet", "/c/d.parquet"]) == (
        [f"{tmp_path}/train.parquet"],
        ["/home/a/b.parquet", "/c/d.parquet"],
    )


@pytest.mark.parametrize("folder", ["set[v2]", "a*b", "what?", "[!x]", "__sets__/.a"])
def test_a_name_is_no_pattern(folder, tiny_files, tmp_path, monkeypatch):
    """`datasets.load_dataset`, as verl calls it, finds this file, and not the one that the pattern would match."""
    from datasets import load_dataset

    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (folder, "setv", "axb", "whatx", "y"):
        (tmp_path / place).mkdir(parents=True)
    source, file = tiny_files / "data", tmp_path / folder / "train.parquet"
    shutil.copy(source / "train.parquet", file)
    for other in ("setv", "axb", "whatx", "y"):
        shutil.copy(source / "validation.parquet", tmp_path / other / "train.parquet")
    (name,), _ = used([f"~/{folder}/train.parquet"], [])
    rows = load_dataset("parquet", data_files=name, cache_dir=str(tmp_path / "cache"))["train"]
    assert (len(rows), name.endswith(".parquet")) == (64, True)
