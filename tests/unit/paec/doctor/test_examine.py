"""Checks of a run as a whole: real full disks, Ray's address, a run directory in use."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.console import GIB
from recipe.paec.doctor import examine
from recipe.paec.plan import formulas, shapes


def test_a_full_disk_is_an_error_with_the_room_needed(tiny_config, tiny_files, small_disk):
    """Four checkpoints of 12 bytes per parameter and their other files, the export, the logs."""
    parameters = shapes.parameter_count(str(tiny_files / "model"))
    each = 12 * parameters + formulas.CHECKPOINT_REST
    assert formulas.checkpoint_bytes(tiny_config(), parameters) == each
    need = 4 * each + 4 * parameters + examine.OTHER_FILES
    folder = small_disk(900)
    check = examine.storage(tiny_config(root=folder))
    (problem,) = check.errors
    assert problem.startswith(f"disk: 0.9 GiB free at {folder}, {need / GIB:.1f} GiB needed (4 checkpoint(s) of 40 MiB")
    assert "lower run.keep_checkpoints" in problem
    assert examine.storage(tiny_config(root=small_disk(1200))).errors == ()


def test_disk_counts_what_is_there(tiny_config, small_disk):
    folder = small_disk(1200)
    config = tiny_config(root=folder)
    checkpoint = Path(config.trainer.default_local_dir) / "global_step_10" / "actor"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.pt").write_bytes(bytes(110 * 2**20))
    assert examine.storage(config).errors == ()  # it counts for the checkpoints that it makes unnecessary
    (folder / "other").write_bytes(bytes(110 * 2**20))
    assert len(examine.storage(config).errors) == 1


def test_disk_does_not_count_damaged_checkpoints(tiny_config, small_disk):
    """They are never deleted, so no other checkpoint gets their space."""
    folder = small_disk(1200)
    config = tiny_config(root=folder)
    checkpoint = Path(config.trainer.default_local_dir) / "global_step_10"
    (checkpoint / "actor").mkdir(parents=True)
    (checkpoint / "actor" / "model.pt").write_bytes(bytes(110 * 2**20))
    assert examine.storage(config).errors == ()
    checkpoint.rename(checkpoint.with_name("damaged_global_step_10"))
    assert len(examine.storage(config).errors) == 1


def test_files_that_vanish_do_not_count(tiny_config, tmp_path, monkeypatch):
    """One is deleted after its folder was listed."""
    config = tiny_config()
    checkpoint = Path(config.trainer.default_local_dir) / "global_step_10"
    for name in ("a", "b"):
        (checkpoint / name).mkdir(parents=True)
        (checkpoint / name / "model.pt").write_bytes(bytes(100))
    listed = os.scandir

    def scandir(place):
        if Path(place).parent == checkpoint and (checkpoint / "b").exists():
            (checkpoint / "b" / "model.pt").unlink()
            (checkpoint / "b").rmdir()
        return listed(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert examine.storage(config).errors == ()
    assert not (checkpoint / "b").exists()


def test_disk_without_room_for_files(tiny_config, small_disk):
    folder = small_disk(2000)
    for i in range(4500):
        (folder / str(i)).touch()
    (problem,) = examine.storage(tiny_config(root=folder)).errors
    assert "more files, 1000 needed" in problem


@pytest.mark.parametrize(
    "overrides, count",
    [
        ([], 4),
        (["run.keep_best=0"], 3),
        (["run.keep_checkpoints=5"], 7),
        (["run.keep_checkpoints=20"], 15),
        (["trainer.total_training_steps=15"], 2),
        (["trainer.save_freq=-1"], 0),
    ],
)
def test_checkpoints_at_once(tiny_config, overrides, count):
    """150 steps and one checkpoint every 10 in the quick start, which keeps the newest 2 and the best."""
    assert examine.saves_to_come(tiny_config(*overrides)) == count


@pytest.fixture
def closed_port():
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        yield stream.getsockname()[1]


def test_ray_addresses(tiny_config, closed_port, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert examine.ray_address(tiny_config()).errors == ()
    nobody = f"127.0.0.1:{closed_port}"
    (problem,) = examine.ray_address(tiny_config(f"cluster.ray_address={nobody}")).errors
    assert problem.startswith(f"cluster.ray_address={nobody}: nothing answers there (Connection refused)")
    (problem,) = examine.ray_address(tiny_config("cluster.ray_address=head")).errors
    assert problem.startswith("cluster.ray_address=head: ") and "HOST:PORT" in problem
    (problem,) = examine.ray_address(tiny_config("cluster.ray_address=auto")).errors
    assert "neither RAY_ADDRESS nor " in problem
    (problem,) = examine.ray_address(tiny_config("cluster.nodes=2")).errors
    assert "cluster.nodes=2: several nodes need a running Ray cluster:" in problem
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(nobody)
    (problem,) = examine.ray_address(tiny_config()).errors
    assert f"makes Ray join {nobody}, but cluster.ray_address is null" in problem
    (problem,) = examine.ray_address(tiny_config("cluster.ray_address=auto")).errors
    assert problem.startswith(f"cluster.ray_address={nobody}: nothing answers")
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    (problem,) = examine.ray_address(tiny_config()).errors
    assert problem.startswith(f"RAY_ADDRESS={nobody} makes Ray join that cluster")
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_port = f"127.0.0.1:{server.getsockname()[1]}"
        assert examine.ray_address(tiny_config(f"cluster.ray_address={open_port}")).errors == ()


def test_run_directory_in_use(tiny_config):
    config = tiny_config()
    assert examine.run_directory(config).errors == ()
    held = folders.lock(Path(config.run.directory), folder_kinds.RUN)
    (problem,) = examine.run_directory(config).errors
    assert problem.startswith(f"{config.run.directory} is in use by another run")
    held.close()
    assert examine.run_directory(config).errors == ()
    (Path(config.run.directory) / "thesis.tex").touch()
    (problem,) = examine.run_directory(config).errors
    assert problem == f"{config.run.directory} contains thesis.tex but no run: choose another run.name"


def test_what_the_run_creates_does_not_fail(compose, tmp_path, monkeypatch):
    """Own rows are wrong: that is an error of the data, and the model that the run will create is none."""
    monkeypatch.setenv("PAEC_TINY_DIR", str(tmp_path / "later"))
    (tmp_path / "own.parquet").write_bytes(b"no parquet")
    model, data = examine.inputs(compose(f"data.train_files=[{tmp_path}/own.parquet]"), tmp_path / "later")
    later = "created by the run (run.prepare_command)"
    assert (model.name, model.found, model.errors) == ("model", f"{tmp_path}/later/model, {later}", ())
    assert data.found == f"{tmp_path}/own.parquet; {tmp_path}/later/data/validation.parquet, {later}"
    assert len(data.errors) == 1 and data.errors[0].startswith(f"data.train_files: {tmp_path}/own.parquet")
    model, _ = examine.inputs(compose("model.path=/nowhere"), tmp_path / "later")
    assert model.found == "/nowhere" and len(model.errors) == 1
