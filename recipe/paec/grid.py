"""`python -m recipe.paec.grid METHODS="none paec siren" SEEDS="0 1 2" [override ...]`: every method with every seed.

One training after the other on this machine, or (SLURM="--nodes=1 --time=24:00:00") as an array of Slurm jobs; what is
done is skipped, what was interrupted goes on. Then one table (recipe.paec.grid_table), written anew after every run.

    METHODS     what is compared: methods (docs/methods.md), or [LABEL=]METHOD[:OVERRIDE]... with Hydra's overrides:
                paec:method.rho_min=0.5 or low=paec:method.rho_min=0.5:method.rho=0.7
    SEEDS       seeds of whole runs                                               (default "0 1 2")
    EXPERIMENT  a file of configs/experiment                                      (default tiny_cpu)
    GRID        folder of the table, below run.root                               (default compare-EXPERIMENT)
    SLURM       options of sbatch: submit an array, and a job that makes the table after it
    --table-only, --dry-run

The words before "=" may be variables of the environment instead. Overrides behind them are Hydra's, for all runs alike.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.paec import folders, grid_table, keys, preflight, safety
from recipe.paec.command_line import REPOSITORY, complain, explain, say
from recipe.paec.errors import UserError
from recipe.paec.grid_table import Run
from recipe.paec.runs import composed, resolved, run_suffix, whose
from recipe.paec.supervise import ProcessTree

KNOBS = {"METHODS": "", "SEEDS": "0 1 2", "EXPERIMENT": "tiny_cpu", "GRID": "", "SLURM": ""}
"""Word of the command line or variable of the environment -> default."""
OURS = {
    "method": "METHODS",
    "seed": "SEEDS",
    "experiment": "EXPERIMENT",
    "run.name": "GRID",
    "run.directory": "run.root",
    "run.dry_run": "--dry-run",
    "run.fresh": "run.root, for a grid that starts over",
}
"""Configuration key that a grid sets by itself -> what to use instead."""
TERMS = (
    "trainer.total_training_steps",
    "data.val_files",
    "data.val_max_samples",
    *(f"actor_rollout_ref.rollout.val_kwargs.{key}" for key in ("n", "do_sample", "temperature", "top_p", "top_k")),
)
"""Configuration keys in which the runs of a table must agree."""
CIRCUMSTANCES = ("run", "trainer", "cluster", "ray_kwargs", "identity")
"""Sections of the configuration that do not make another run: how long, how watched, where (`runs.SAME_RUN`)."""
TRAIN = [sys.executable, "-m", "recipe.paec.train"]
"""What one run is started with."""
SWEEP = REPOSITORY / "launch" / "slurm" / "sweep.sbatch"
_ENTRY = re.compile(r"(?:(?P<label>[^=:]+)=)?(?P<method>[^=:]+)(?P<overrides>(?::[^:]+)*)")


@dataclass(frozen=True)
class Entry:
    """One word of METHODS, a row of the table."""

    label: str
    method: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """What a command line asks for."""

    experiment: str
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    """Of all runs."""
    name: str
    words: Mapping[str, str]
    """KNOBS as they were given."""

    def pairs(self) -> list[tuple[Entry, int]]:
        """One for each run; the place is the task of a Slurm array. All methods with the first seed come first."""
        return [(entry, seed) for seed in self.seeds for entry in self.entries]

    def run_name(self, entry: Entry, seed: int) -> str:
        """The same wherever it runs; other overrides make another one."""
        return f"{self.experiment}-{entry.label}{run_suffix(list(self.overrides))}-seed{seed}"

    def arguments(self, entry: Entry, seed: int) -> list[str]:
        """The overrides of one run, without its experiment."""
        name = f"run.name='{self.run_name(entry, seed)}'"
        return [f"method={entry.method}", *entry.overrides, f"seed={seed}", *self.overrides, name]

    def configuration(self, entry: Entry, seed: int) -> DictConfig:
        """The resolved configuration of one run; UserError for keys and values that do not exist."""
        return compose([f"experiment={self.experiment}", *self.arguments(entry, seed)])


# ---- the command line ------------------------------------------------------------------------------------------------


def parse_entry(word: str) -> Entry:
    """One word of METHODS; UserError if it is none."""
    match = _ENTRY.fullmatch(word)
    if match is None:
        raise UserError(f"METHODS: {word!r} is not [LABEL=]METHOD[:OVERRIDE]..., as in low=paec:method.rho_min=0.5")
    overrides = tuple(match["overrides"].split(":")[1:])
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(f"METHODS: {word!r}: {override!r} is not an override (key=value)")
    label = match["label"] or match["method"] + run_suffix(list(overrides))
    if not re.fullmatch(r"[\w.,=+-]+", label, re.ASCII):
        raise UserError(f"METHODS: {label!r} becomes part of a folder's name: letters, digits and . , = + - _ only")
    return Entry(label, match["method"], overrides)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Grid:
    """The grid of a command line, flags taken out; UserError for what needs no configuration to be wrong."""
    given = dict(a.split("=", 1) for a in arguments if a.partition("=")[0] in KNOBS)
    overrides = [a for a in arguments if a.partition("=")[0] not in KNOBS]
    words = {knob: given.get(knob, environment.get(knob, default)) for knob, default in KNOBS.items()}
    for argument in overrides:
        if argument.startswith("-") or "=" not in argument and not argument.startswith("~"):
            raise UserError(
                f"{argument}: neither an override (key=value), nor {'=, '.join(KNOBS)}=, --table-only or --dry-run"
            )
    entries = [parse_entry(word) for word in words["METHODS"].split()]
    if not entries:
        raise UserError('METHODS="none paec ...": say what to compare')
    everywhere = [*overrides, *(o for entry in entries for o in entry.overrides)]
    if secrets := safety.check_arguments(everywhere):
        raise UserError(*secrets)
    for override in everywhere:
        key = override.lstrip("+~").partition("=")[0]
        if key in OURS:
            raise UserError(f"{override}: a grid sets {key} by itself: use {OURS[key]}")
    common = {override.lstrip("+~").partition("=")[0] for override in overrides}
    for entry in entries:
        for override in entry.overrides:
            if (key := override.lstrip("+~").partition("=")[0]) in common:
                raise UserError(f"{key} is given for {entry.label} and for all runs, which would count: leave one out")
    seeds = words["SEEDS"].split()
    for seed in seeds:
        if not re.fullmatch(r"\d+", seed, re.ASCII):
            raise UserError(f"SEEDS: {seed} is no whole number")
    if not seeds:
        raise UserError('SEEDS="0 1 2": give at least one')
    for what, found in (("METHODS", [e.label for e in entries]), ("SEEDS", [str(int(seed)) for seed in seeds])):
        twice = next((one for one in found if found.count(one) > 1), None)
        if twice is not None:
            raise UserError(f"{what}: {twice} occurs twice: leave one out, or give it a LABEL= of its own")
    experiment = words["EXPERIMENT"]
    name = words["GRID"] or f"compare-{experiment}{run_suffix(overrides)}"
    if not re.fullmatch(r"[\w.,=+-]+", name, re.ASCII):
        raise UserError(f"GRID={name}: a folder's name: letters, digits and . , = + - _ only")
    if problem := folders.name_problem("GRID", name):
        raise UserError(problem)
    return Grid(experiment, tuple(entries), tuple(map(int, seeds)), tuple(overrides), name, words)


# ---- what can be wrong before hours are spent ------------------------------------------------------------------------


def compose(overrides: Sequence[str]) -> DictConfig:
    """The resolved configuration of a training's command line; UserError for keys and values that do not exist."""
    if problems := keys.check_overrides(overrides):
        raise UserError(*problems)
    try:
        return resolved(composed(*overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, list(overrides), "train")) from None


def prepare(grid: Grid) -> list[Run]:
    """The grid's runs, in the order of `Grid.pairs`.

    Raises:
        UserError: a configuration that cannot work, runs that would not be compared on equal terms, or a directory that
            holds another run than the one that belongs there. All that is wrong is said at once.
    """
    say(f"checking {len(grid.entries)} methods")
    problems: dict[str, list[str]] = {}
    configs: dict[str, DictConfig] = {}
    for entry in grid.entries:  # a seed is a number and cannot be wrong
        try:
            configs[entry.label] = config = grid.configuration(entry, grid.seeds[0])
            found = preflight.check_config(config)
        except UserError as error:
            found = error.problems
        for problem in found:
            problems.setdefault(problem, []).append(entry.label)
    if problems:
        every = len(grid.entries)
        raise UserError(*(p if len(who) == every else f"{', '.join(who)}: {p}" for p, who in problems.items()))
    found = _unequal_terms(configs)
    runs = []
    for entry, seed in grid.pairs():
        config = configs[entry.label]
        run = Run(
            label=entry.label,
            seed=seed,
            directory=Path(config.run.root) / grid.run_name(entry, seed),
            steps=config.trainer.total_training_steps,
            saves=config.trainer.save_freq > 0,
            exports=config.run.export,
        )
        mark = {**whose(config), "name": grid.run_name(entry, seed)}
        problem = folders.name_problem("run.name", mark["name"])
        if problem := problem or folders.problem_of(run.directory, folders.RUN, mark, fresh=False):
            found.append(problem)
        elif (run.directory / "config.yaml").is_file():
            found += _other_run(run, grid.configuration(entry, seed))
        runs.append(run)
    table = runs[0].directory.parent / grid.name
    if problem := folders.problem_of(table, folders.GRID, {}, fresh=False):
        found.append(problem)
    if found:
        raise UserError(*found)
    return runs


def _unequal_terms(configs: Mapping[str, DictConfig]) -> list[str]:
    """What makes validations of the methods, label -> configuration, no measure of the same thing."""
    problems = []
    (first, reference), *others = configs.items()
    if blind := [label for label, config in configs.items() if config.trainer.test_freq <= 0]:
        problems.append(f"{', '.join(blind)}: trainer.test_freq must be positive: without validation, no accuracy")
    for key in TERMS:
        wanted = OmegaConf.select(reference, key)
        for label, config in others:
            value = OmegaConf.select(config, key)
            if value != wanted:
                problems.append(
                    f"{label} and {first} cannot be compared: {key} is {value} and {wanted}: give it to all runs, "
                    "not in METHODS"
                )
    return problems


def _other_run(run: Run, config: DictConfig) -> list[str]:
    """Why what stands in a run's directory is another run than `config` describes."""
    remedy = "use another run.root, or delete that folder"
    if (run.step() or 0) > run.steps:
        return [f"{run.directory} was trained to step {run.step()}, this asks for {run.steps} steps: {remedy}"]
    recorded = _settings(OmegaConf.load(run.directory / "config.yaml"))
    wanted = _settings(OmegaConf.create(OmegaConf.to_yaml(config)))  # numbers as that file's were read
    for key in sorted(recorded.keys() | wanted.keys()):
        if recorded.get(key) != wanted.get(key):
            return [
                f"{run.directory} holds another run: {key} is {recorded.get(key)!r} there and {wanted.get(key)!r} "
                f"here: {remedy}"
            ]
    return []


def _settings(config: DictConfig) -> dict[str, Any]:
    """Key -> value of all that makes a run what it is."""
    found: dict[str, Any] = {}

    def add(node: Any, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                add(value, f"{prefix}{key}.")
            else:
                found[prefix + str(key)] = value

    sections = OmegaConf.to_container(config)
    add({key: value for key, value in sections.items() if key not in CIRCUMSTANCES}, "")
    return found


# ---- the table -------------------------------------------------------------------------------------------------------


def show_table(grid: Grid, runs: Sequence[Run], folder: Path, failed: Mapping[Path, str]) -> None:
    """Write the table of what is there, and print it."""
    text, files = _write_table(grid, runs, folder, failed)
    say("\n".join(["", text, *map(str, files)]))


def _write_table(grid: Grid, runs: Sequence[Run], folder: Path, failed: Mapping[Path, str]) -> tuple[str, list[Path]]:
    overrides = [o for o in grid.overrides if not o.lstrip("+").startswith(("run.", "cluster"))]
    about = {"experiment": grid.experiment, "methods": grid.words["METHODS"].split(), "overrides": overrides}
    return grid_table.write(folder, runs, failed, about)


# ---- one after the other ---------------------------------------------------------------------------------------------


class Stop:
    """SIGTERM and Ctrl-C go on to the training, which saves and ends; a second one ends it at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came first, None: none has."""
        self._child: subprocess.Popen | None = None

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watch(self, child: subprocess.Popen) -> None:
        """Signals go to this process from now on; one that has just come, too."""
        self._child = child
        if self.number is not None:
            child.send_signal(self.number)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        if self._child is not None:
            self._child.send_signal(number)


def train(grid: Grid, run: Run, arguments: Sequence[str], log: Path, stop: Stop) -> str | None:
    """Start a training, show what it prints until it ends; returns why it failed, None if it is finished."""
    with open(log, "a+", encoding="utf-8", errors="replace") as stream:  # at its end: an earlier start's is old news
        tree = ProcessTree([*TRAIN, f"experiment={grid.experiment}", *arguments], log, dict(os.environ))
        stop.watch(tree.process)
        printed: list[str] = []

        def show() -> None:
            if text := stream.read():
                printed.append(text)
                print(text, end="", flush=True)

        try:
            code = tree.wait(show)
        finally:
            tree.end()
    if code == 0 and run.finished():
        return None
    errors = [line.removeprefix("error: ") for line in "".join(printed).splitlines() if line.startswith("error: ")]
    return "; ".join(errors) or f"it ended with exit code {code} at step {run.step() or 0}, see {log}"


def training_time(run: Run, started: float) -> float:
    """Seconds that a run which has just ended spent on training.

    Making model and data, which only a grid's first run does, is over when a start writes its configuration.
    """
    file = run.directory / "config.yaml"
    return time.time() - max(started, file.stat().st_mtime if file.is_file() else started)


def train_all(grid: Grid, runs: Sequence[Run], folder: Path) -> int:
    """Train what is not done, one after the other, the table anew after each; returns the exit code."""
    to_do = [run for run in runs if not run.done()]
    say(f"{len(runs)} runs of {grid.experiment}, {len(runs) - len(to_do)} of them done; table and logs in {folder}")
    failed: dict[Path, str] = {}
    seconds = trained = 0.0
    with Stop() as stop:
        for number, run in enumerate(to_do):
            before, started = run.step() or 0, time.time()
            minutes = seconds * sum(r.steps - (r.step() or 0) for r in to_do[number:]) / max(trained, 1) / 60
            left = f", about {minutes:.0f} min left" if trained else ""
            place = "" if run.step() is None else f", at step {run.step()} of {run.steps}"
            say(f"\n=== run {number + 1} of {len(to_do)}: {run.label}, seed {run.seed}{place}{left} ===")
            entry = next(entry for entry in grid.entries if entry.label == run.label)
            log = folder / f"{run.directory.name}.log"
            failure = train(grid, run, grid.arguments(entry, run.seed), log, stop)
            if stop.number is not None:
                break
            if failure is not None:
                failed[run.directory] = failure
                say(f"{run.label}, seed {run.seed} failed; the others go on")
            else:
                seconds, trained = seconds + training_time(run, started), trained + run.steps - before
            _write_table(grid, runs, folder, failed)
    show_table(grid, runs, folder, failed)
    if stop.number is not None:
        say(f"stopped by {signal.Signals(stop.number).name}; the same command goes on from there")
        return 128 + stop.number
    for run in runs:
        if run.directory in failed:
            complain([f"{run.label}, seed {run.seed}: {failed[run.directory]}"])
    return 1 if failed else 0


# ---- on a cluster ----------------------------------------------------------------------------------------------------


def submit(grid: Grid, runs: Sequence[Run], folder: Path) -> None:
    """Submit what is not done as an array, and a job that makes the table when all of it has ended."""
    if shutil.which("sbatch") is None:
        raise UserError("SLURM: there is no sbatch on this machine: leave SLURM out to train here")
    tasks = [str(task) for task, run in enumerate(runs) if not run.done()]
    if not tasks:
        show_table(grid, runs, folder, {})
        return
    # Where the jobs start is not where this command did.
    overrides = [*grid.overrides, f"run.root='{folder.parent}'"]
    words = {**grid.words, "GRID": grid.name}
    name = f"paec-{folder.name}"
    queued = _slurm(["squeue", "--noheader", f"--user={getpass.getuser()}", f"--name={name}", "--format=%A"], {})
    if queued:
        raise UserError(f"job {queued.split()[0]} does this already: wait for it, or scancel it")
    options = [f"--job-name={name}", f"--chdir={REPOSITORY}", f"--output={folder}/slurm-%A_%a.out", "--parsable"]
    options += shlex.split(grid.words["SLURM"])
    array = _slurm(["sbatch", *options, f"--array={','.join(tasks)}", str(SWEEP), *overrides], words)
    array = array.split(";")[0]
    say(f"submitted {len(tasks)} of {len(runs)} runs as the array {array}: {folder}/slurm-{array}_*.out")
    table = ["bash", "launch/python.sh", "-m", "recipe.paec.grid", "--table-only", *overrides]
    once = [f"--dependency=afterany:{array}", f"--output={folder}/slurm-%j-table.out", "--nodes=1", "--ntasks=1"]
    job = _slurm(["sbatch", *options, *once, "--time=10", f"--wrap={shlex.join(table)}"], words)
    say(f"job {job.split(';')[0]} makes the table after them; in between: the same command with --table-only")


def _slurm(command: list[str], words: Mapping[str, str]) -> str:
    done = subprocess.run(command, env={**os.environ, **words}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{command[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.strip()


# ---- command ---------------------------------------------------------------------------------------------------------


def run(arguments: Sequence[str]) -> int:
    """The whole command; returns the exit code, UserError for what a user can mend."""
    arguments = list(arguments)
    if "--task" in arguments:
        return print_task(arguments)
    flags = {flag for flag in ("--table-only", "--dry-run") if flag in arguments}
    grid = parse([a for a in arguments if a not in flags], os.environ)
    runs = prepare(grid)
    folder = runs[0].directory.parent / grid.name
    if "--dry-run" in flags:
        for one in runs:
            place = "done" if one.done() else "to do" if one.step() is None else f"at step {one.step()} of {one.steps}"
            say(f"{one.label}, seed {one.seed}: {place}, {one.directory}")
        say(f"dry run: nothing was started; the table would be {folder / grid_table.TABLE}")
        return 0
    if "--table-only" in flags:
        show_table(grid, runs, folder, {})
        return 0
    held = folders.lock(folder)
    try:
        folders.take(folder, folders.GRID, {}, False, say)
        if grid.words["SLURM"]:
            submit(grid, runs, folder)
            return 0
        return train_all(grid, runs, folder)
    finally:
        held.close()


def print_task(arguments: list[str]) -> int:
    """`--task N`, for launch/slurm/sweep.sbatch: label, seed and overrides of the N-th run, a line each."""
    place = arguments.index("--task")
    given = "".join(arguments[place + 1 : place + 2])
    if not re.fullmatch(r"\d+", given, re.ASCII):
        raise UserError(f"--task {given}: give the number of a run, from 0")
    task = int(given)
    grid = parse(arguments[:place] + arguments[place + 2 :], os.environ)
    pairs = grid.pairs()
    if not 0 <= task < len(pairs):
        raise UserError(
            f"{len(grid.entries)} methods and {len(grid.seeds)} seeds: submit with sbatch --array=0-{len(pairs) - 1}"
        )
    entry, seed = pairs[task]
    say("\n".join([entry.label, str(seed), *grid.arguments(entry, seed)]))
    return 0


def main() -> int:
    """Command line entry; returns the exit code: 1 if a run failed, 2 for wrong input, 130 or 143 stopped."""
    try:
        return run(sys.argv[1:])
    except UserError as error:
        return complain(error.problems)


if __name__ == "__main__":
    sys.exit(main())
