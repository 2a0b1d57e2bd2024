"""Grids of runs: what a command line means, what is refused, values by hand, and grids killed and started again.

The runs of most tests are a script's in place of the training's; the last ones train the tiny experiment.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from omegaconf import OmegaConf
from pipeline_runs import REPOSITORY, descendants, finish, records, wait_for

from recipe.paec.common.errors import UserError
from recipe.paec.grid import command as grid_command
from recipe.paec.grid import local, prepare, request
from recipe.paec.grid.runs import GridRun
from recipe.paec.grid.table import PLAIN, picture, run_values, summarize, to_markdown, write
from recipe.paec.run import checkpoints

# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word, label, method, overrides",
    [
        ("paec", "paec", "paec", ()),
        ("paec:method.rho=0.7", "paec-rho=0.7", "paec", ("method.rho=0.7",)),
        ("low=paec:method.rho=0.7:+x=[a,b]", "low", "paec", ("method.rho=0.7", "+x=[a,b]")),
        ("grpo=none", "grpo", "none", ()),
        ("custom:method.target=my.Method", "custom-target=my.Method", "custom", ("method.target=my.Method",)),
    ],
)
def test_a_word_of_methods(word, label, method, overrides):
    assert request.parse_entry(word) == request.Entry(label, method, overrides)


def test_names_do_not_depend_on_where_it_runs(capsys):
    words = ["METHODS=none low=paec:method.rho=0.7", "SEEDS=3 04", "lora.rank=2", "trainer.save_freq=1"]
    found = request.parse(words, {"EXPERIMENT": "qwen7b", "SEEDS": "9"})
    names = [found.run_name(entry, seed) for entry, seed in found.pairs()]
    assert names == [f"qwen7b-{label}-lora.rank=2-seed{seed}" for seed in (3, 4) for label in ("none", "low")]
    assert found.name == "compare-qwen7b-lora.rank=2"
    assert grid_command.run([*words, "EXPERIMENT=qwen7b", "--task", "3"]) == 0  # what the array's task asks
    expected = ["low", "4", "method=paec", "method.rho=0.7", "seed=4", *words[2:], f"run.name='{names[3]}'"]
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], 'METHODS is empty: name the methods to compare, as in METHODS="none paec"'),
        (
            ["METHODS=none:"],
            "METHODS: 'none:' must have the form [LABEL=]METHOD[:OVERRIDE]..., as in low=paec:method.rho_min=0.5",
        ),
        (["METHODS=none:rho"], "METHODS: 'none:rho': 'rho' is not an override: write key=value"),
        (["METHODS=a/b"], "METHODS: 'a/b' becomes part of a folder name"),
        (["METHODS=none paec none"], "METHODS: none occurs twice: leave one out, or give it its own LABEL="),
        (["METHODS=none", "SEEDS=1 2 01"], "SEEDS: 1 occurs twice"),
        (["METHODS=none", "SEEDS=1 -2"], "SEEDS: -2 is not an integer"),
        (["METHODS=none", "SEEDS= "], 'SEEDS is empty: give at least one seed, as in SEEDS="0 1 2"'),
        (["METHODS=none", "GRID=../x"], "GRID=../x: must be a folder name with only"),
        (["METHODS=none", "--dry"], "--dry: must be an override key=value, METHODS="),
        (["METHODS=none", "method=siren"], "method=siren: the grid sets method itself: use METHODS"),
        (["METHODS=none:seed=2"], "seed=2: the grid sets seed itself: use SEEDS"),
        (["METHODS=none", "run.fresh=true"], "run.fresh=true: the grid sets run.fresh itself: use run.root"),
        (["METHODS=none", "+x.api_key=abcdefgh"], "x.api_key would put a secret where others can read it"),
        (["METHODS=none paec", "SEEDS=1 2", "--task", "4"], "2 methods and 2 seeds: submit with sbatch --array=0-3"),
    ],
)
def test_refused_at_once(arguments, message, monkeypatch):
    for knob in request.KNOBS:
        monkeypatch.delenv(knob, raising=False)
    with pytest.raises(UserError) as error:
        grid_command.run(arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "words, problems",
    [
        (["METHODS=none sirn"], ["sirn: no method sirn: did you mean siren? The options are .*, paec, .*, siren.*"]),
        (["METHODS=none", "EXPERIMENT=tiny_cp"], ["no experiment tiny_cp: did you mean tiny_cpu? The options are .*"]),
        (
            ["METHODS=none paec:method.rho=7 bad=paec:metod.rho=1"],
            ["paec-rho=7: method.rho=7: must be .*", "bad: unknown configuration key metod.rho: did you mean .*"],
        ),
        (["METHODS=none paec", "data.train_batch_size=7"], ["data.train_batch_size=7 must be a multiple of .*"]),
        (
            ["METHODS=none long=none:trainer.total_training_steps=50", "trainer.test_freq=-1"],
            [
                "none, long: trainer.test_freq must be > 0: .*",
                "long and none cannot be compared: trainer.total_training_steps is 50 and 40: set it for all runs, .*",
            ],
        ),
    ],
)
def test_everything_is_checked_before_anything_starts(words, problems, tmp_path):
    with pytest.raises(UserError) as error:
        grid_command.run([*words, f"run.root={tmp_path / 'runs'}"])
    assert len(error.value.errors) == len(problems)
    for problem, expected in zip(error.value.errors, problems, strict=True):
        assert re.fullmatch(expected.replace("? ", r"\? "), problem), problem
    assert not (tmp_path / "runs").exists()


# ---- what a directory holds ------------------------------------------------------------------------------------------


def made_run(folder: Path, lines: list[dict], saved: int | None = None, config: str = "", steps: int = 2) -> GridRun:
    """A run directory as a training leaves it."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(config)
    if saved is not None:
        state = checkpoints.folder_of(folder / "checkpoints", saved)
        state.mkdir(parents=True)
        (state / "paec_state.json").write_text("{}")
    label, seed = re.fullmatch(r".*-(\w+)-seed(\d+)", folder.name).groups()
    return GridRun(label, int(seed), folder, steps, saves=True, exports=True)


def test_what_is_done(tmp_path):
    whole = [{"step": 0}, {"step": 1}, {"step": 2}]
    assert not GridRun("a", 1, tmp_path / "none", 2, saves=True, exports=True).finished()
    assert not made_run(tmp_path / "t-early-seed1", whole[:2], saved=1).finished()
    assert not made_run(tmp_path / "t-unsaved-seed1", whole, saved=1).finished(), "killed before its checkpoint counted"
    run = made_run(tmp_path / "t-whole-seed1", whole, saved=2)
    assert run.finished() and not run.done(), "killed before the export"
    (run.directory / "huggingface").mkdir()
    assert run.done()
    assert GridRun("whole", 1, run.directory, 2, saves=False, exports=True).done()
    assert not GridRun("whole", 1, run.directory, 3, saves=True, exports=True).finished(), "asked for more since"


def test_another_run_in_the_directory_is_refused(compose, tmp_path):
    """Lengths, places and monitoring may differ, as for a resumed run; nothing else may."""
    config = compose("experiment=tiny_cpu", "trainer.total_training_steps=2", "run.poll_interval=0.3")
    text = OmegaConf.to_yaml(config)
    run = made_run(tmp_path / "t-paec-seed1", [{"step": 2}], config=text)
    same = compose("experiment=tiny_cpu", "trainer.total_training_steps=5", "cluster.nodes=2")
    assert prepare._other_run(run, config) == prepare._other_run(run, same) == []
    other = compose("experiment=tiny_cpu", "actor_rollout_ref.actor.optim.lr=1e-4")
    (problem,) = prepare._other_run(run, other)
    assert problem == (
        f"{run.directory} contains another run: its actor_rollout_ref.actor.optim.lr is 5e-05, here 0.0001: "
        "choose another run.root, or delete that folder"
    )
    longer = GridRun("paec", 1, run.directory, 1, saves=True, exports=True)
    (problem,) = prepare._other_run(longer, config)
    assert problem.startswith(
        f"{run.directory} is already at step 2, more than the 1 steps asked for: choose another run.root"
    )


# ---- values ----------------------------------------------------------------------------------------------------------


def line(step: int, entropy: float | None, length: float, seconds: float, save: float = 0.0, **val: float) -> dict:
    record = {"step": step, "actor/entropy": entropy, "response_length/mean": length, "timing_s/step": seconds}
    record |= {"timing_s/save_checkpoint": save} if save else {}
    return record | {f"val/{key.replace('__', '/')}".replace("_at_", "@"): value for key, value in val.items()}


def test_values_of_a_run_by_hand():
    """12 steps: the last tenth, rounded up, are two; validation before the first and after the last."""
    steps = [line(s, 1.0 / s, 10.0 * s, 2.0 + s, save=s % 2) for s in range(1, 12)]
    steps.append(line(12, 0.25, 100.0, 50.0, save=40.0, amc__avg_at_2=0.5, amc__maj_at_2=0.25, aime__avg_at_2=0.1))
    found = run_values([{"step": 0, "val/amc/avg@2": 0.9}, *steps])
    assert found["accuracy"] == {
        "aime": {"avg@2": 0.1},
        "amc": {"avg@2": 0.5, "maj@2": 0.25},
        "average": {"avg@2": pytest.approx(0.3)},
    }
    assert found["entropy"] == pytest.approx((1 / 11 + 0.25) / 2)
    assert found["length"] == pytest.approx((110 + 100) / 2)
    assert found["seconds"] == pytest.approx(8.0)  # the middle of 2 4 4 6 6 8 8 10 10 10 12 12
    assert run_values([line(1, None, 3.0, 1.0)])["entropy"] is None, "NaN is no value"


def finished_pair(root: Path) -> list[GridRun]:
    """Two methods with two seeds; one run has not ended, one has not started."""
    source = {"amc23__avg_at_4": 0.25, "amc23__maj_at_4": 0.5, "amc23__pass_at_4": 0.75, "amc23__pass_at_2": 0.6}
    better = {**source, "amc23__avg_at_4": 0.35}
    return [
        made_run(root / "t-none-seed0", [line(1, 0.4, 9, 3), line(2, 0.5, 10, 4, **source)], 2),
        made_run(root / "t-none-seed1", [line(1, 0.4, 9, 3), line(2, 0.7, 12, 6, **better)], 2),
        made_run(root / "t-paec-seed0", [line(1, 0.4, 9, 3), line(2, 0.6, 11, 5, **better)], 2),
        made_run(root / "t-paec-seed1", [line(1, 0.4, 9, 3)], 1),
        GridRun("siren", 0, root / "t-siren-seed0", 2, saves=True, exports=True),
    ]


ABOUT = {"experiment": "t", "methods": ["none", "paec", "siren"], "overrides": ["lora.rank=2"]}


def test_means_and_intervals_by_hand(tmp_path):
    runs = finished_pair(tmp_path)
    result = summarize(runs, {runs[3].directory: "disk full"}, ABOUT)
    none, paec, siren = result["methods"]
    assert (none["label"], none["seeds"], none["of"]) == ("none", [0, 1], 2)
    half = 12.706204736 * math.sqrt(2 * 0.05**2) / math.sqrt(2)  # t of one degree of freedom, sd / sqrt(n)
    expected = {"value": 0.3, "low": 0.3 - half, "high": 0.3 + half}
    assert none["accuracy"]["amc23"]["avg@4"] == pytest.approx(expected)
    assert none["accuracy"]["amc23"]["pass@2"] == pytest.approx({"value": 0.6, "low": 0.6, "high": 0.6})
    assert none["entropy"]["value"] == pytest.approx(0.6) and none["length"]["value"] == pytest.approx(11)
    assert none["seconds"]["value"] == pytest.approx((3.5 + 4.5) / 2)
    assert (paec["seeds"], paec["of"]) == ([0], 2)
    assert paec["accuracy"]["amc23"]["avg@4"] == {"value": 0.35, "low": None, "high": None}
    assert siren["seeds"] == [] and siren["accuracy"] == {} and siren["entropy"] is None
    assert [run["step"] for run in result["runs"]] == [2, 2, 2, 1, None]


def test_the_table_as_text(tmp_path):
    runs = finished_pair(tmp_path)
    text = to_markdown(summarize(runs, {runs[3].directory: "disk full"}, ABOUT))
    lines = text.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in lines if row.startswith("|")]
    assert cells[0] == ["Method", "seeds", "avg@4", "maj@4", "pass@4", "entropy", "length", "s / step"]
    assert cells[2] == [
        "none",
        "2",
        "30.0 ± 63.5",
        "50.0 ± 0.0",
        "75.0 ± 0.0",
        "0.6000 ± 1.2706",
        "11.0 ± 12.7",
        "4.0 ± 6.4",
    ]
    assert cells[3] == ["paec", "1 of 2", "35.0", "50.0", "75.0", "0.6000", "11.0", "4.0"]
    assert cells[4] == ["siren", "0 of 1", "-", "-", "-", "-", "-", "-"]
    assert "t, 2 steps." in text and "validation on amc23 after the last step" in text and "lora.rank=2" in text
    assert lines[-2:] == [
        "* paec, seed 1: at step 1 of 2; its last attempt failed: disk full",
        "* siren, seed 0: not started",
    ]


def test_several_validation_sets_have_their_columns_and_a_mean(tmp_path):
    values = {f"{name}__{m}_at_2": v for name, v in (("math500", 0.5), ("aime24", 0.1)) for m in ("avg", "maj", "pass")}
    run = made_run(tmp_path / "t-none-seed0", [line(2, 0.5, 1, 1, **values)], 2)
    head, _, row = to_markdown(summarize([run], {}, ABOUT)).splitlines()[:3]
    names = [cell.strip() for cell in head.strip("|").split("|")]
    assert names[2:8:3] == ["AIME24 avg@2", "MATH500 avg@2"] and names[8] == "average avg@2"
    assert [cell.strip() for cell in row.strip("|").split("|")][2:11:3] == ["10.0", "50.0", "30.0"]


def test_different_commits_are_remarked_upon(tmp_path):
    runs = finished_pair(tmp_path)
    for run, commit in zip(runs, ("aa", "aa", "bb-dirty"), strict=False):
        (run.directory / "versions.json").write_text(json.dumps({"git_commit": commit}))
    (remark,) = summarize(runs, {}, ABOUT)["remarks"]
    assert remark.endswith("different commits of this repository: aa (t-none-seed0), bb-dirty (t-paec-seed0)")


def test_the_picture_draws_means_and_the_range_over_seeds(tmp_path):
    runs = finished_pair(tmp_path / "runs")
    accuracy, entropy = picture(runs).axes
    assert [list(line.get_ydata()) for line in entropy.lines] == [pytest.approx([0.4, 0.6])] * 2
    (band,) = entropy.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices.round(9)} >= {(2.0, 0.5), (2.0, 0.7), (1.0, 0.4)}
    assert accuracy.get_title("left") == "AMC23 avg@4, %"
    assert [line.get_ydata()[0] for line in accuracy.lines] == pytest.approx([30.0, 35.0])
    text, files = write(tmp_path, runs, {}, ABOUT)
    assert [file.name for file in files] == ["table.md", "table.json", "curves.png"]
    assert files[0].read_text() == text and files[2].read_bytes().startswith(b"\x89PNG")
    assert json.loads(files[1].read_text())["methods"][0]["label"] == "none"
    assert picture(runs[3:]) is None


# ---- grids of a script in place of the training ----------------------------------------------------------------------

TRAINING = """
import json, os, re, signal, sys, time
from pathlib import Path
given = dict(a.split("=", 1) for a in sys.argv[1:])
folder = Path(given["run.root"]) / given["run.name"].strip("'")
steps, pause = int(given["trainer.total_training_steps"]), float(os.environ.get("PAUSE", "0"))
folder.mkdir(exist_ok=True)
mark = {"kind": "run", "experiment": given["experiment"], "name": folder.name}
(folder / ".paec_folder.json").write_text(json.dumps(mark))
(folder / "starts").open("a").write(f"{os.getpid()}\\n")
if given["method"] == os.environ.get("FAILS"):
    sys.exit("error: no room on the disk")
asked = []
signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
state = lambda step: folder / "checkpoints" / f"global_step_{step}" / "paec_state.json"
first = 1 + max((step for step in range(steps + 1) if state(step).is_file()), default=0)
for step in range(first, steps + 1):
    time.sleep(pause)
    record = {"step": step, "actor/entropy": 0.5, "response_length/mean": 7, "timing_s/step": 1.0}
    record |= {f"val/s/{m}@4": int(given["seed"]) / 4 for m in ("avg", "maj", "pass")} if step == steps else {}
    (folder / "metrics.jsonl").open("a").write(json.dumps(record) + "\\n")
    print(f"step {step}/{steps}", flush=True)
    state(step).parent.mkdir(parents=True)
    state(step).write_text("{}")
    if asked:
        print("stopped, as requested", flush=True)
        sys.exit(128 + asked[0])
"""
GRID = """
import sys
from recipe.paec.grid import command as grid, local
local.TRAIN = [sys.executable, {script!r}]
sys.exit(grid.main())
"""


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """launch(*arguments, ENVIRONMENT=...) -> a started grid of two methods with seeds 1 and 3."""
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    started = []

    def start(*arguments: str, **env: str) -> subprocess.Popen:
        for name, value in {"PAUSE": "0", "FAILS": "", **env}.items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-c", GRID.format(script=str(script)), "METHODS=none paec", "SEEDS=1 3", "GRID=g"]
        command += [f"run.root={tmp_path}", "trainer.total_training_steps=3", "run.export=false", *arguments]
        pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(subprocess.Popen(command, cwd=REPOSITORY, **pipe))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def starts(root: Path) -> dict[str, int]:
    """Run -> how often it was started."""
    return {file.parent.name.removeprefix("tiny_cpu-"): len(file.read_text().split()) for file in root.glob("*/starts")}


def values(root: Path) -> dict:
    return json.loads((root / "g" / "table.json").read_text())


def test_a_grid_from_beginning_to_end(launch, tmp_path):
    """One method fails: the others continue, the failure is shown, and the same command only does what is missing."""
    process = launch(FAILS="paec")
    output = finish(process)
    assert process.returncode == 1, output
    assert starts(tmp_path) == {"none-seed1": 1, "paec-seed1": 1, "none-seed3": 1, "paec-seed3": 1}
    assert [m["seeds"] for m in values(tmp_path)["methods"]] == [[1, 3], []]
    assert "* paec, seed 3: not started; its last attempt failed: no room on the disk" in output
    assert "=== run 3 of 4: none, seed 3, about 0 min left ===\nstep 1/3\nstep 2/3\n" in output
    assert "error: paec, seed 1: no room on the disk" in output
    process = launch()
    output = finish(process)
    assert process.returncode == 0, output
    assert starts(tmp_path) == {"none-seed1": 1, "paec-seed1": 2, "none-seed3": 1, "paec-seed3": 2}
    assert "4 runs of tiny_cpu, 2 of them done" in output and "Not in the table" not in output
    assert [m["seeds"] for m in values(tmp_path)["methods"]] == [[1, 3], [1, 3]]
    assert values(tmp_path)["methods"][1]["accuracy"]["s"]["avg@4"]["value"] == 0.5
    third = launch("--table-only")
    assert "| 50.0 ±" in finish(third) and sum(starts(tmp_path).values()) == 6


def test_the_time_left_leaves_the_preparation_out(tmp_path):
    """Ten minutes of making model and data, then a minute of training."""
    run = GridRun("none", 1, tmp_path, 3, saves=True, exports=False)
    now = time.time()
    assert 660 <= local.training_time(run, now - 660) < 720
    (tmp_path / "config.yaml").touch()
    os.utime(tmp_path / "config.yaml", (now - 60, now - 60))
    assert 60 <= local.training_time(run, now - 660) < 120


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=SLOW), pytest.param(signal.SIGKILL, marks=SLOW)]
)
def test_killed_and_started_again(launch, tmp_path, number):
    first = launch(PAUSE="1")
    directory = tmp_path / "tiny_cpu-paec-seed1"
    wait_for(lambda: len(records(directory)) == 1, 120, first)
    family = descendants(first.pid)
    first.send_signal(number)
    output = finish(first)
    _, left = psutil.wait_procs(family, timeout=20)
    assert [p.pid for p in left] == []
    assert first.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number], output
    before = len(records(directory))
    if number != signal.SIGKILL:
        assert "stopped, as requested" in output and f"stopped by {number.name}; the same command resumes" in output
        assert before == 2, "the step it was in was saved"
        assert f"* paec, seed 1: at step {before} of 3" in output
    second = launch()
    output = finish(second)
    assert second.returncode == 0, output
    assert starts(tmp_path) == {"none-seed1": 1, "paec-seed1": 2, "none-seed3": 1, "paec-seed3": 1}
    assert f"=== run 1 of 3: paec, seed 1, at step {before} of 3 ===" in output
    assert [record["step"] for record in records(directory)] == [1, 2, 3]
    assert [m["seeds"] for m in values(tmp_path)["methods"]] == [[1, 3], [1, 3]]


@pytest.mark.slow
def test_two_at_once_are_refused(launch, tmp_path):
    first = launch(PAUSE="60")
    wait_for(lambda: starts(tmp_path), 120, first)
    second = launch()
    output = finish(second)
    assert second.returncode == 2 and f"error: {tmp_path / 'g'} is in use by another grid" in output
    look = launch("--table-only")
    assert "* none, seed 1: not started" in finish(look) and look.returncode == 0


# ---- the real pipeline -----------------------------------------------------------------------------------------------
PIPELINE = ("trainer.total_training_steps=3", "trainer.save_freq=1", "trainer.test_freq=3", "run.export=false")
LIGHT = ("actor_rollout_ref.rollout.val_kwargs.n=2", "data.val_max_samples=16", "cluster.env.OMP_NUM_THREADS=1")


@pytest.mark.slow
@pytest.mark.pipeline
@pytest.mark.timeout(3600)
def test_a_comparison_killed_twice(tiny, tmp_path):
    """launch/grid.sh on the tiny model, two methods, two seeds: SIGTERM in the first run, SIGKILL in the second."""

    def start() -> subprocess.Popen:
        command = ["bash", "launch/grid.sh", "METHODS=none paec", "SEEDS=1 2", "GRID=g", f"run.root={tmp_path}"]
        env = {**os.environ, "PAEC_TINY_DIR": str(tiny), "PAEC_TINY_ARGS": "--steps 240"}
        pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return subprocess.Popen([*command, *PIPELINE, *LIGHT], cwd=REPOSITORY, env=env, **pipe)

    def steps(name: str) -> list[int]:
        return [record["step"] for folder in tmp_path.glob(f"*-{name}") for record in records(folder)]

    def kill(number: int, name: str, step: int) -> str:
        def shown() -> bool:  # the metrics are there a moment before the launcher knows of the step
            return any(f"step    {step}/3" in log.read_text() for log in tmp_path.glob(f"g/*{name}.log"))

        process = start()
        try:
            wait_for(shown, 900, process)
            family = descendants(process.pid)
            process.send_signal(number)
            output = finish(process)
        finally:
            process.kill()
        _, left = psutil.wait_procs(family, timeout=180)  # Ray's agents wait a minute for their head
        assert [p.name() for p in left] == []
        assert process.returncode == (143 if number == signal.SIGTERM else -number), output
        return output

    output = kill(signal.SIGTERM, "none*-seed1", 1)
    assert re.search("stopped after step [12] of 3, as requested", output), output
    assert re.search(r"\* none, seed 1: at step [12] of 3", output)
    assert "stopped by SIGTERM; the same command resumes" in output
    output = kill(signal.SIGKILL, "paec*-seed1", 2)
    assert re.search("resuming tiny_cpu-none.*-seed1 after step [12] of 3", output)
    process = start()
    output, _ = process.communicate(timeout=2400)
    assert process.returncode == 0, output
    assert "4 runs of tiny_cpu, 1 of them done" in output and "Not in the table" not in output
    assert re.search("resuming tiny_cpu-paec.*-seed1 after step [12] of 3", output)
    for label in ("none", "paec"):
        for seed in (1, 2):
            assert steps(f"{label}*-seed{seed}") == [0, 1, 2, 3]
    table = json.loads((tmp_path / "g" / "table.json").read_text())
    for method in table["methods"]:
        assert method["seeds"] == [1, 2]
        (source,) = method["accuracy"]
        for estimate in [*method["accuracy"][source].values(), *(method[key] for key in PLAIN)]:
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert set(method["accuracy"][source]) == {"avg@2", "maj@2", "pass@1", "pass@2"}
        runs = [run["values"] for run in table["runs"] if run["label"] == method["label"]]
        assert method["entropy"]["value"] == pytest.approx(sum(run["entropy"] for run in runs) / 2) and len(runs) == 2
    again = start()
    assert "4 runs of tiny_cpu, 4 of them done" in finish(again) and again.returncode == 0
