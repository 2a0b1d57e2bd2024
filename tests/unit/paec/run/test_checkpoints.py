"""Checkpoints that are whole, damaged, unfinished; which are kept, and which is the best."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from made_checkpoints import complete

from recipe.paec.run import checkpoints
from recipe.paec.run.checkpoints import BLOCK, BLOCKS, CheckpointError, DamagedCheckpoint


def saved(root, step, score=None, size=1000):
    """A complete checkpoint with two files."""
    folder = root / f"global_step_{step}"
    (folder / "actor").mkdir(parents=True)
    (folder / "actor" / "model_world_size_1_rank_0.pt").write_bytes(bytes(i % 251 for i in range(size)))
    (folder / "data.pt").write_bytes(b"position")
    checkpoints.commit(root, step, {"workers": 1}, {"observations": [0.5]}, score)
    return folder


def test_a_whole_checkpoint(tmp_path):
    folder = saved(tmp_path, 4, score=0.25)
    checkpoint = checkpoints.verify(folder)
    assert (checkpoint.step, checkpoint.score, checkpoint.folder) == (4, 0.25, folder)
    files = json.loads((folder / "paec_state.json").read_text())["files"]
    assert set(files) == {"actor/model_world_size_1_rank_0.pt", "data.pt"}
    assert files["data.pt"] == {"bytes": 8, "sha256": hashlib.sha256(b"position").hexdigest()}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda f: f.write_bytes(f.read_bytes()[:-1]),
            "actor/model_world_size_1_rank_0.pt has 999 bytes, but 1000 were saved",
        ),
        (lambda f: f.write_bytes(b""), "actor/model_world_size_1_rank_0.pt has 0 bytes, but 1000 were saved"),
        (lambda f: f.write_bytes(bytes(1000)), "actor/model_world_size_1_rank_0.pt has changed since it was saved"),
        (lambda f: f.unlink(), "actor/model_world_size_1_rank_0.pt is missing"),
    ],
)
def test_damage_is_found_and_the_previous_one_used(tmp_path, damage, sentence):
    saved(tmp_path, 2)
    newer = saved(tmp_path, 4)
    damage(newer / "actor" / "model_world_size_1_rank_0.pt")
    found, damaged = checkpoints.latest(tmp_path)
    assert found.step == 2
    assert [str(error) for error in damaged] == [f"{newer} is damaged: {sentence}"]
    place = checkpoints.set_aside(newer)
    assert place == tmp_path / "damaged_global_step_4" and not newer.exists()
    assert checkpoints.latest(tmp_path) == (found, [])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 3, "step": 4}'])
def test_a_state_that_was_cut_off(tmp_path, content):
    saved(tmp_path, 2)
    (saved(tmp_path, 4) / "paec_state.json").write_text(content)
    found, (error,) = checkpoints.latest(tmp_path)
    assert found.step == 2 and "paec_state.json" in str(error)


def test_all_damaged(tmp_path):
    for step in (2, 4):
        (saved(tmp_path, step) / "data.pt").unlink()
    found, damaged = checkpoints.latest(tmp_path)
    assert found is None and [error.folder.name for error in damaged] == ["global_step_4", "global_step_2"]


def test_the_state_of_another_format_is_not_damage(tmp_path):
    folder = saved(tmp_path, 2)
    (folder / "paec_state.json").write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match="format 1, but this version reads 3") as error:
        checkpoints.latest(tmp_path)
    assert not isinstance(error.value, DamagedCheckpoint)


def test_digest_of_a_large_file_sees_every_end_and_is_bounded(tmp_path):
    """17 MiB: 16 blocks, the first at the start and the last at the end."""
    file = tmp_path / "large"
    size = (BLOCKS + 1) * BLOCK
    content = bytearray(size)
    file.write_bytes(content)
    before = checkpoints.digest(file)
    expected = hashlib.sha256()
    for i in range(BLOCKS):
        start = (size - BLOCK) * i // (BLOCKS - 1)
        expected.update(bytes(content[start : start + BLOCK]))
    assert before == {"bytes": size, "sha256": expected.hexdigest()}
    for place in (0, (size - BLOCK) * 7 // (BLOCKS - 1), size - 1):
        changed = bytearray(content)
        changed[place] = 1
        file.write_bytes(changed)
        assert checkpoints.digest(file) != before, place


def test_newest_and_best_are_kept(tmp_path):
    scores = {2: 0.5, 4: 0.9, 6: None, 8: 0.9, 10: 0.1, 12: None}
    for step, score in scores.items():
        saved(tmp_path, step, score)
    assert [checkpoint.step for checkpoint in checkpoints.best(tmp_path)] == [8, 4, 2, 10]
    checkpoints.prune(tmp_path, keep=2, keep_best=1)
    assert [step for step, _ in checkpoints.steps(tmp_path)] == [12, 10, 8]
    checkpoints.prune(tmp_path, keep=1, keep_best=0)
    assert [step for step, _ in checkpoints.steps(tmp_path)] == [12]


def test_remains_of_a_killed_save(tmp_path):
    folder = saved(tmp_path, 4)
    saved(tmp_path, 2)
    (folder / "paec_state.json").rename(folder / ".paec_state.json.77.tmp")
    assert checkpoints.latest(tmp_path)[0].step == 2
    assert checkpoints.remove_incomplete(tmp_path) == [folder] and not folder.exists()


def test_prune_keeps_the_newest(tmp_path):
    for step in (2, 4, 6, 10):
        complete(tmp_path, step, {})
    checkpoints.prune(tmp_path, 2)
    assert [step for step, _ in checkpoints.steps(tmp_path)] == [10, 6]


def test_the_run_of_a_relative_path(tmp_path, monkeypatch):
    folder = tmp_path / "run" / "checkpoints" / "global_step_5"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").touch()
    monkeypatch.chdir(folder)
    assert checkpoints.run_of(Path("../global_step_5")) == checkpoints.run_of(Path(".")) == tmp_path / "run"
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert checkpoints.run_of(tmp_path / "link" / "checkpoints" / "global_step_5") == tmp_path / "link"
