"""No command deletes or overwrites what is not its own: marks, fresh starts, and a tree that stays as it is."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from run_folders import MINE, marked, tree, write

from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.errors import UserError
from recipe.paec.config import resolve
from recipe.paec.evaluate.folder import continue_or_start, refuse
from recipe.paec.grid import command as grid_command
from recipe.paec.run import checkpoints

REPOSITORY = Path(__file__).resolve().parents[4]
FOREIGN = (
    "notes.txt",
    "config.yaml.bak",
    "checkpoints/global_step_2_backup/data.pt",
    "checkpoints/global_step_2/why.txt",
    "checkpoints/mine/paec_state.json",
    "rollouts/best.jsonl",
    "tokens/best.parquet",
    "huggingface/model.gguf",
    "evaluation/luffy-aime24/thoughts.md",
    "sub/metrics.jsonl",
)


# ---- marks -----------------------------------------------------------------------------------------------------------


def test_whether_a_folder_is_in_use(tmp_path):
    assert not folders.in_use(tmp_path) and list(tmp_path.iterdir()) == []
    with folders.lock(tmp_path, folder_kinds.RUN):
        assert folders.in_use(tmp_path)
    assert not folders.in_use(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_sentence(tmp_path, monkeypatch, number):
    def flock(stream, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders.fcntl, "flock", flock)
    with pytest.raises(UserError) as error:
        folders.lock(tmp_path / "run", folder_kinds.RUN)
    assert str(error.value) == (
        f"{tmp_path / 'run'}: its file system has no file locks ({os.strerror(number)}): have it mounted with them "
        "(Lustre: the option flock; NFS: without nolock), or choose a folder on another file system (run.root=..., "
        "output=...)"
    )
    assert not folders.in_use(tmp_path / "run")


def test_a_new_folder_is_marked(tmp_path, compose):
    config = compose("run.name=mine")
    folder = tmp_path / "mine"
    with folders.lock(folder, folder_kinds.RUN):
        folders.take(folder, folder_kinds.RUN, resolve.folder_mark(config), False, print)
    assert json.loads((folder / folder_kinds.MARK).read_text()) == {"kind": "run", **MINE}
    assert sorted(path.name for path in folder.iterdir()) == [".lock", folder_kinds.MARK]
    assert folders.error_of(folder, folder_kinds.RUN, MINE, fresh=True) is None


def test_output_that_a_shell_put_there_does_not_count(tmp_path):
    write(tmp_path / "mine", "nohup.out", "launch.log")
    assert folders.error_of(tmp_path / "mine", folder_kinds.RUN, MINE, fresh=False) is None


@pytest.mark.parametrize("fresh", [False, True])
def test_folders_of_others_are_refused(tmp_path, fresh):
    root = tmp_path / "root"
    outside = root / "outside"
    write(outside, "a.txt")
    marked(root / "other", name="other", experiment="tiny_cpu")
    marked(root / "experiment", name="mine", experiment="qwen7b")
    marked(root / "evaluation", folder_kinds.EVALUATION)
    marked(root / "grid", folder_kinds.GRID)
    write(root / "foreign", "config.yaml", "metrics.jsonl")
    write(root / "empty_folder" / "sub" / "x", "a")
    marked(root / "through_link")
    shutil.rmtree(root / "through_link" / "checkpoints")
    (root / "through_link" / "checkpoints").symlink_to(outside)
    marked(root / "linked_file")
    (root / "linked_file" / "metrics.jsonl").unlink()
    (root / "linked_file" / "metrics.jsonl").symlink_to(outside / "a.txt")
    expected = {
        "other": "belongs to another run: its name is 'other', but this command has 'mine'",
        "experiment": "belongs to another run: its experiment is 'qwen7b', but this command has 'tiny_cpu'",
        "evaluation": "contains evaluation files, not run files",
        "grid": "contains grid files, not run files",
        "foreign": "contains config.yaml but no run",
        "empty_folder": "contains sub but no run",
        "through_link": "through_link/checkpoints is a symbolic link, and nothing is written or deleted through links",
        "linked_file": "linked_file/metrics.jsonl is a symbolic link",
        "other/checkpoints/inner": "would be inside {root}/other, which contains run files",
    }
    before = tree(root)
    for name, reason in expected.items():
        problem = folders.error_of(root / name, folder_kinds.RUN, MINE, fresh)
        assert problem is not None and reason.format(root=root) in problem, name
        assert "run.name" in problem or "run.root" in problem, "names the remedy"
        with pytest.raises(UserError):
            folders.take(root / name, folder_kinds.RUN, MINE, fresh, print)
    assert tree(root) == before


def test_a_run_folder_that_is_a_link_is_not_cleared(tmp_path):
    marked(tmp_path / "real")
    (tmp_path / "mine").symlink_to(tmp_path / "real")
    before = tree(tmp_path)
    assert folders.error_of(tmp_path / "mine", folder_kinds.RUN, MINE, fresh=False) is None, "it may be continued"
    assert "is a symbolic link" in folders.error_of(tmp_path / "mine", folder_kinds.RUN, MINE, fresh=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("recorded", [True, False])
def test_fresh_deletes_the_runs_own_files_and_says_so(tmp_path, recorded):
    """Runs from before there were marks are known by their configuration."""
    folder = marked(tmp_path / "mine")
    write(folder, *FOREIGN)
    (folder / "outside").symlink_to(REPOSITORY)
    if not recorded:
        (folder / folder_kinds.MARK).unlink()
        (folder / "config.yaml").write_text(yaml.dump({"run": {**MINE, "x": 1}, "identity": {"method": "paec"}}))
    said: list[str] = []
    with folders.lock(folder, folder_kinds.RUN):
        folders.take(folder, folder_kinds.RUN, MINE, True, said.append)
    left = {path for path, (kind, _) in tree(folder).items() if kind != "folder"}
    assert left == {*FOREIGN, "outside", ".lock", folder_kinds.MARK}
    (sentence,) = said
    assert sentence.startswith(
        f"run.fresh=true: deletes the run in {folder}: .huggingface.tmp/ (1 files), checkpoints/ (7"
    )
    assert "metrics.jsonl" in sentence
    assert (
        "; leaves checkpoints/global_step_2/why.txt, checkpoints/global_step_2_backup/, checkpoints/mine/" in sentence
    )
    said.clear()
    folders.take(folder, folder_kinds.RUN, MINE, True, said.append)
    assert said == [], "there is nothing left to delete"


@pytest.mark.parametrize("kind", [folder_kinds.EVALUATION, folder_kinds.CURRICULUM])
def test_a_killed_fresh_start_leaves_no_responses_of_unknown_settings(tmp_path, kind, monkeypatch):
    """What is left is the old evaluation with its identity, or nothing that another one would take for its own."""
    files = ("evaluation.json", "generation.json", "journal.jsonl", "samples.jsonl", "scores.json", "model/config.json")
    unlink, left = os.unlink, [0]

    def killed(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        unlink(*arguments, **options)

    for deleted in range(len(files)):
        folder = tmp_path / str(deleted)
        folder.mkdir()
        folders.take(folder, kind, {}, False, print)
        write(folder, *files)
        left[0] = deleted
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(os, "unlink", killed)
            folders.take(folder, kind, {}, True, print)
        there = [name for name in files if (folder / name).exists()]
        assert len(there) == len(files) - deleted and "evaluation.json" in there, there
        assert "scores.json" not in there or deleted == 0
        folders.take(folder, kind, {}, True, print)
        assert not any((folder / name).exists() for name in files)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def saved(root: Path, step: int) -> Path:
    folder = root / f"global_step_{step}"
    write(folder, "data.pt", "actor/model_world_size_1_rank_0.pt")
    checkpoints.commit(root, step, {"workers": 1}, {}, None)
    return folder


def test_checkpoints_are_pruned_file_by_file(tmp_path):
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    for step in (2, 4, 6):
        saved(root, step)
    saved(elsewhere, 8)
    (root / "global_step_8").symlink_to(elsewhere / "global_step_8")
    write(root, "global_step_2/why.txt", "global_step_02/data.pt", "global_step_4_copy/data.pt")
    write(root, "global_step_10/data.pt", "global_step_12/data.pt", "global_step_12/why.txt")
    before = tree(elsewhere)
    assert checkpoints.remove_incomplete(root) == [root / "global_step_12", root / "global_step_10"]
    assert checkpoints.remove_incomplete(root) == [], "what is left is not ours"
    checkpoints.prune(root, keep=1)
    left = {path for path, (kind, _) in tree(root).items() if kind != "folder"}
    assert left == {
        "global_step_2/why.txt", "global_step_8", "global_step_02/data.pt", "global_step_4_copy/data.pt",
        "global_step_12/why.txt",
    }  # fmt: skip
    assert tree(elsewhere) == before


def test_every_damaged_checkpoint_is_kept(tmp_path):
    places = []
    for content in ("first", "second", "third"):
        (saved(tmp_path, 4) / "data.pt").write_text(content)
        places.append(checkpoints.set_aside(tmp_path / "global_step_4"))
    assert [place.name for place in places] == [f"damaged_global_step_4{end}" for end in ("", "-2", "-3")]
    assert [(place / "data.pt").read_text() for place in places] == ["first", "second", "third"]


# ---- real command lines ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A run.root as it may be: runs, evaluations, grids, folders and links of others."""
    root = tmp_path_factory.mktemp("work") / "outputs"
    marked(root / "tiny_cpu-paec", name="tiny_cpu-paec", experiment="tiny_cpu")
    marked(root / "qwen7b-paec", name="qwen7b-paec", experiment="qwen7b")
    write(root / "tiny_cpu-paec", *FOREIGN)
    saved(root / "saved" / "checkpoints", 2)
    write(root / "photos" / "2024", "a.jpg")
    write(root / "configured", "config.yaml", "checkpoints/x")
    write(root / "evaluation" / "m-luffy-aime24", "scores.json", "journal.jsonl")
    write(root / "compare-tiny_cpu", "table.md", "table.json")
    write(root.parent, "escape/metrics.jsonl", "samples.jsonl", "a.txt")
    (root / "run_link").symlink_to(root / "tiny_cpu-paec")
    (root / "photo_link").symlink_to(root / "photos")
    (root / "file").write_text("a file")
    return root


def command(module: str, *arguments: str, root: Path) -> list[str]:
    """The error lines of a command, which must end with exit code 2."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": str(root.parent)}
    env |= dict.fromkeys(("MPLCONFIGDIR", "XDG_CACHE_HOME"), str(root.parent.parent / "cache"))
    given = [argument.format(root=root) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", f"recipe.paec.{module}", *given],
        cwd=root.parent, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, f"{given}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]


HERE, FRESH = "run.root={root}", "run.fresh=true"
HOSTILE = [
    ("train", [HERE, "run.name=", FRESH], "run.name='' is empty"),
    (
        "train",
        [HERE, "run.directory={root}/tiny_cpu-paec", "run.name=mine", FRESH],
        "belongs to another run: its name is",
    ),
    ("train", [HERE, "run.name=photos", "--dry-run"], "photos contains 2024 but no run: choose another run.name"),
    ("curriculum", [HERE, "run.name=../../escape", FRESH], "run.name='../../escape' must be the name of one folder,"),
    ("evaluate", ["samples={root}/../samples.jsonl", "output=", "fresh=true"], "output='' is empty"),
    ("grid", ["METHODS=none", "GRID=..", HERE], "GRID='..' must not begin with a dot"),
    ("export", ["{root}/saved/checkpoints/global_step_2", "{root}/photos", "--replace"], "photos was not written by"),
]


@pytest.mark.parametrize(("module", "arguments", "reason"), HOSTILE)
def test_hostile_commands_change_nothing(root, module, arguments, reason):
    before = tree(root.parent)
    (problem,) = command(module, *arguments, root=root)
    assert reason in problem
    assert tree(root.parent) == before


def test_hostile_names_and_places_of_a_run(root, compose):
    """The same for more of them, without a process for each."""
    before = tree(root.parent)
    names = ["..", ".", "a/b", "-x", "~", "a b/../c", "evaluation", "tiny_cpu-paec/checkpoints"]
    for override in [f"run.name='{name}'" for name in names] + ["run.directory=", "run.directory=/", "run.root=/"]:
        with pytest.raises(UserError):
            compose(f"run.root={root}", override, "run.fresh=true")
    for name in ("photos", "configured", "run_link", "photo_link", "compare-tiny_cpu", "qwen7b-paec", "saved"):
        about = {"experiment": "tiny_cpu", "name": name}
        with pytest.raises(UserError):
            folders.take(root / name, folder_kinds.RUN, about, True, print)
    assert tree(root.parent) == before


def test_hostile_outputs_of_an_evaluation(root):
    before = tree(root.parent)
    outputs = (
        "tiny_cpu-paec",
        "tiny_cpu-paec/checkpoints",
        "photos",
        "run_link",
        "compare-tiny_cpu",
        "evaluation",
        "..",
    )
    for output in outputs:
        for fresh in (False, True):
            with pytest.raises(UserError):
                refuse(root / output, {"seed": 0}, fresh)
            with pytest.raises(UserError):
                continue_or_start(root / output, {"seed": 0}, fresh)
    assert tree(root.parent) == before


def test_a_grid_refuses_folders_of_others(root):
    before = tree(root.parent)
    for name, reason in (("photos", "but no grid"), ("tiny_cpu-paec", "contains run files, not grid files")):
        for flag in ([], ["--table-only"], ["--dry-run"]):
            with pytest.raises(UserError, match=reason):
                grid_command.run(["METHODS=none", f"GRID={name}", f"run.root={root}", *flag])
    for name in ("a/b", "-x", ".hidden", "x" * 201):
        with pytest.raises(UserError, match="^GRID="):
            grid_command.run(["METHODS=none", f"GRID={name}", f"run.root={root}"])
    with pytest.raises(UserError, match="contains config.yaml but no run"):
        write(root / "tiny_cpu-none-seed1", "config.yaml")
        try:
            grid_command.run(["METHODS=none", "SEEDS=1", "GRID=new", f"run.root={root}"])
        finally:
            shutil.rmtree(root / "tiny_cpu-none-seed1")
    assert tree(root.parent) == before


def test_two_runs_in_one_directory(tmp_path):
    held = folders.lock(tmp_path, folder_kinds.RUN)
    with pytest.raises(UserError, match="in use"):
        folders.lock(tmp_path, folder_kinds.RUN)
    held.close()
    folders.lock(tmp_path, folder_kinds.RUN).close()
