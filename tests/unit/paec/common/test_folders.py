"""No command deletes or overwrites what is not its own: names, marks, fresh starts, and a tree that stays as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from data_prep.cleaning import contents, leads_to, matches, remove
from recipe.paec.common import folder_kinds, folder_names, folders
from recipe.paec.common.errors import UserError
from recipe.paec.config import resolve
from recipe.paec.curriculum import prompt_scores
from recipe.paec.evaluate.folder import continue_or_start, refuse
from recipe.paec.export import huggingface
from recipe.paec.grid import command as grid_command
from recipe.paec.run import checkpoints

REPOSITORY = Path(__file__).resolve().parents[4]
MINE = {"experiment": "tiny_cpu", "name": "mine"}


def tree(root: Path) -> dict[str, tuple[str, bytes | str]]:
    """Every file, folder and link below `root`, with its content or target."""
    found: dict[str, tuple[str, bytes | str]] = {}
    for place, names, files in os.walk(root):
        for name in names + files:
            path = Path(place, name)
            kind = "link" if path.is_symlink() else "file" if path.is_file() else "folder"
            found[str(path.relative_to(root))] = (
                kind,
                os.readlink(path) if kind == "link" else path.read_bytes() * (kind == "file") if kind == "file" else "",
            )
    return found


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


RUN_FILES = (
    "config.yaml",
    "versions.json",
    "metrics.jsonl",
    "heartbeat.json",
    "train.log",
    "rollouts/1.jsonl",
    "validation/2.jsonl",
    "checkpoints/latest_checkpointed_iteration.txt",
    "checkpoints/global_step_2/paec_state.json",
    "checkpoints/global_step_2/data.pt",
    "checkpoints/global_step_2/actor/model_world_size_2_rank_0.pt",
    "checkpoints/global_step_2/actor/huggingface/config.json",
    "checkpoints/damaged_global_step_1/actor/fsdp_config.json",
    "checkpoints/damaged_global_step_1-2/data.pt",
    "huggingface/config.json",
    "huggingface/model-00001-of-00002.safetensors",
    ".huggingface.tmp/model.safetensors",
    "evaluation/luffy-aime24/curve.json",
    "evaluation/luffy-aime24/step_2/samples.jsonl",
    "evaluation/luffy-aime24/step_2/.lock",
)
FOREIGN = (
    "notes.txt",
    "config.yaml.bak",
    "checkpoints/global_step_2_backup/data.pt",
    "checkpoints/global_step_2/why.txt",
    "checkpoints/mine/paec_state.json",
    "rollouts/best.jsonl",
    "huggingface/model.gguf",
    "evaluation/luffy-aime24/thoughts.md",
    "sub/metrics.jsonl",
)


def marked(folder: Path, kind: folder_kinds.Kind = folder_kinds.RUN, **about: str) -> Path:
    write(folder, *RUN_FILES)
    (folder / folder_kinds.MARK).write_text(json.dumps({"kind": kind.name, **(about or MINE)}))
    return folder


# ---- deleting by patterns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "patterns", "file", "folder"),
    [
        ("a", ["a"], True, False),
        ("a", ["a/b"], False, True),
        ("a/b", ["a/b"], True, False),
        ("a/b/c", ["a/b"], False, False),
        ("step_12", ["step_#/x"], False, True),
        ("step_1_old", ["step_#/x"], False, False),
        ("step_/x", ["step_#/x"], False, False),
        ("step_²/x", ["step_#/x"], False, False),
        ("a/b/c", ["a/**"], True, True),
        ("a", ["a/**"], False, True),
        ("ab/c", ["a*/c"], True, False),
        ("a/b/c", ["a*/c"], False, False),
        ("a.b", ["a+b"], False, False),
        ("a\nb", ["a*"], True, False),
        ("x", [], False, False),
    ],
)
def test_patterns(path, patterns, file, folder):
    assert (matches(path, patterns), leads_to(path, patterns)) == (file, folder)


def test_only_what_the_patterns_say_is_removed(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    write(outside, "a.txt", "deep/a.txt")
    write(folder, "a.txt", "b.txt", "deep/a.txt", "deep/b.txt", "own/a.txt", "other/a.txt")
    (folder / "link").symlink_to(outside)
    (folder / "own/link").symlink_to(outside / "a.txt")
    patterns = ("a.txt", "deep/a.txt", "own/*", "link/a.txt", "link/deep/**")
    before = tree(outside)
    found = contents(folder, patterns)
    assert found.own == ["a.txt", "deep/a.txt", "own/a.txt"]
    assert found.links == ["link", "own/link"]
    assert found.foreign == ["b.txt", "deep/b.txt", "other/"]
    assert remove(folder, patterns) == ["a.txt", "deep/a.txt", "own/a.txt"]
    assert sorted(tree(folder)) == ["b.txt", "deep", "deep/b.txt", "link", "other", "other/a.txt", "own", "own/link"]
    assert tree(outside) == before
    (folder / "own/link").unlink()
    assert remove(folder, patterns) == [] and not (folder / "own").exists(), "an empty folder of the patterns goes"


# ---- names and places ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "tiny_cpu-paec-seed=7", "a,b", "my run", "Größe", 5, 1.5, "x" * 200])
def test_names_that_can_be(name):
    assert folder_names.name_error("run.name", name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty (an unset shell variable?)"),
        ("  ", "is empty"),
        (None, "run.name=None must be the name of one folder: correct it,"),
        (True, "run.name=True must be the name of one folder: correct it,"),
        ([], "must be the name of one folder: correct it,"),
        (".", "must not begin with a dot"),
        ("..", "must not begin with a dot"),
        (".hidden", "must not begin with a dot"),
        ("-rf", "must not begin with a dot, a dash"),
        ("~", "must not begin with a dot, a dash or ~"),
        ("a/b", "without a separator"),
        ("../../escape", "without a separator"),
        ("/etc", "without a separator"),
        ("a\\b", "without a separator"),
        ("a\nb", "unprintable character:"),
        ("a\x00b", "unprintable character:"),
        ("a\u202eb", "unprintable character:"),
        ("a\udcffb", "unprintable character:"),
        (" a", "begins or ends with a space"),
        ("x" * 201, "has 201 bytes"),
        ("ü" * 101, "has 202 bytes"),
        ("slurm", "is reserved"),
    ],
)
def test_invalid_names(name, reason):
    problem = folder_names.name_error("run.name", name)
    assert problem.startswith("run.name=") and reason in problem and "\n" not in problem
    assert problem.endswith(("choose another name", "or leave run.name out"))
    problem.encode()  # can be printed


@pytest.mark.parametrize(
    ("root", "directory", "reason"),
    [
        ("", None, "run.root='' is empty (an unset shell variable?)"),
        (None, None, "run.root=None must be the path of a folder"),
        ("/", None, "run.root=/ is the root of the file system"),
        ("{tmp}/file", None, "{tmp}/file is a file"),
        ("{tmp}/file/deeper", None, "{tmp}/file is a file"),
        ("{tmp}/nowhere", None, "{tmp}/nowhere is a broken symbolic link"),
        ("~nosuchuser", None, "this user does not exist:"),
        ("{tmp}/a", "", "run.directory='' is empty"),
        ("{tmp}/a", "/", "run.directory=/ is the root"),
        ("{tmp}/a", "~", "it is your home folder"),
        ("{tmp}/a", "{home_above}", "it contains your home folder"),
        ("{tmp}/a", str(REPOSITORY), "it is this repository"),
        ("{tmp}/a", str(REPOSITORY.parent), "it contains this repository"),
        ("{tmp}/a", "{tmp}/a", "contains run.root={tmp}/a, the folder of all runs: "),
        ("{tmp}/a", "{tmp}", "contains run.root={tmp}/a, the folder of all runs: "),
        ("{tmp}/a", "{tmp}/a/b/..", "contains run.root={tmp}/a, the folder of all runs: "),
        ("{tmp}/a", "{tmp}/file", "{tmp}/file is a file"),
    ],
)
def test_invalid_places(tmp_path, monkeypatch, root, directory, reason):
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "homes" / "me").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "homes" / "me"))
    names = {"tmp": tmp_path, "home_above": tmp_path / "homes"}
    root, directory = (value and value.format(**names) for value in (root, directory))
    given = f"{root}/mine" if directory is None else directory
    (problem,) = folder_names.run_errors(root, "mine", given)
    assert reason.format(**names) in problem and "\n" not in problem


def test_places_that_can_be(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert folder_names.run_errors(str(tmp_path / "root"), "mine", str(tmp_path / "root" / "mine")) == []
    assert folder_names.run_errors("outputs", "mine", "outputs/mine") == []
    assert folder_names.run_errors(str(tmp_path), "mine", str(tmp_path.parent / "elsewhere")) == []


@pytest.mark.parametrize(
    "override", ["run.name=", "run.name=..", "run.name='a/b'", "run.experiment='../x'", "run.root="]
)
def test_every_command_checks_them(compose, override):
    with pytest.raises(UserError, match=r"^run\.(name|root)="):
        compose(override)


# ---- marks -----------------------------------------------------------------------------------------------------------


def test_whether_a_folder_is_in_use(tmp_path):
    assert not folders.in_use(tmp_path) and list(tmp_path.iterdir()) == []
    with folders.lock(tmp_path, folder_kinds.RUN):
        assert folders.in_use(tmp_path)
    assert not folders.in_use(tmp_path)


def test_a_new_folder_is_marked(tmp_path, compose):
    config = compose("run.name=mine")
    folder = tmp_path / "mine"
    with folders.lock(folder, folder_kinds.RUN):
        folders.take(folder, folder_kinds.RUN, resolve.whose(config), False, print)
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
        "other": "belongs to another run: its name is 'other', here 'mine'",
        "experiment": "belongs to another run: its experiment is 'qwen7b', here 'tiny_cpu'",
        "evaluation": "contains evaluation files, not run files",
        "grid": "contains grid files, not run files",
        "foreign": "contains config.yaml but no run",
        "empty_folder": "contains sub but no run",
        "through_link": "through_link/checkpoints is a symbolic link, and nothing is written or deleted behind one",
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


# ---- curriculum and export -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [False, True])
def test_scores_replace_scores_alone(tmp_path, fresh):
    target = tmp_path / "train.semantic_entropy.parquet"
    target.write_text("somebody's")
    with pytest.raises(UserError, match="was not written by this command: move it away"):
        prompt_scores.is_scored(target, {"seed": 1}, fresh)
    assert target.read_text() == "somebody's"


def test_an_export_replaces_an_export_alone(tmp_path):
    target = tmp_path / "model"
    assert huggingface.target_error(target, replace=True) is None
    target.mkdir()
    assert huggingface.target_error(target, replace=False) is None, "an empty folder is allowed"
    write(target, "config.json", "train.py")
    assert "exists and is not empty" in huggingface.target_error(target, replace=False)
    assert "was not written by this command" in huggingface.target_error(target, replace=True)
    (target / "paec_export.json").write_text('{"run": "r", "step": 2}')
    assert f"{target / 'train.py'} is not part of the export" in huggingface.target_error(target, replace=True)
    (target / "train.py").unlink()
    assert huggingface.target_error(target, replace=True) is None
    (tmp_path / "link").symlink_to(target)
    assert "is a symbolic link" in huggingface.target_error(tmp_path / "link", replace=True)
    assert "is a file" in huggingface.target_error(target / "config.json", replace=True)


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
