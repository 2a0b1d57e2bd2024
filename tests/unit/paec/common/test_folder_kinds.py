"""What a folder holds: files that records list, and evaluations from before there were marks."""

from __future__ import annotations

import json
import shutil

import pytest
from run_folders import MINE, marked, tree, write

from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.errors import UserError
from recipe.paec.evaluate.folder import continue_or_start


def test_files_that_records_list_are_the_recipes(tmp_path):
    folder = marked(tmp_path / "mine")
    shutil.rmtree(folder / "checkpoints")
    shutil.rmtree(folder / "huggingface")
    write(folder, "checkpoints/global_step_4/actor/of_a_later_verl.pt", "checkpoints/global_step_4/mine.txt")
    write(folder, "huggingface/tokenizer.special.json", "huggingface/mine.txt")
    listed = {"files": {"actor/of_a_later_verl.pt": {}, "../../config.yaml": {}, "*": {}}}
    (folder / "checkpoints/global_step_4/paec_state.json").write_text(json.dumps(listed))
    (folder / "huggingface/paec_export.json").write_text('{"files": ["tokenizer.special.json"]}')
    folders.take(folder, folder_kinds.RUN, MINE, True, print)
    left = {path for path, (kind, _) in tree(folder).items() if kind == "file"}
    assert left == {"checkpoints/global_step_4/mine.txt", "huggingface/mine.txt", folder_kinds.MARK}


def test_an_older_evaluation_is_known_by_its_fields(tmp_path):
    identity = dict.fromkeys(("model", "protocol", "seed", "chat_template", "context_length", "dtype", "benchmarks"))
    for name, content in (("ours", identity), ("scored", {"samples": 1, "benchmarks": {}}), ("theirs", {"score": 1})):
        write(tmp_path / name, "journal.jsonl", "samples.jsonl")
        (tmp_path / name / "evaluation.json").write_text(json.dumps(content))
    before = tree(tmp_path / "theirs")
    with pytest.raises(
        UserError, match="theirs contains evaluation.json but no evaluation: choose a new or empty folder"
    ):
        continue_or_start(tmp_path / "theirs", identity, fresh=True)
    assert tree(tmp_path / "theirs") == before
    for name in ("ours", "scored"):
        continue_or_start(tmp_path / name, identity, fresh=True)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [folder_kinds.MARK, "evaluation.json"]


def test_the_command_that_resumes():
    """With `fresh`, the same command would start over once more."""
    assert [folder_kinds.RUN.same_command(fresh) for fresh in (False, True)] == [
        "the same command",
        "the same command without run.fresh=true",
    ]
    assert folder_kinds.EVALUATION.same_command(True) == "the same command without fresh=true"
