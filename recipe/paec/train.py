"""`python -m recipe.paec.train experiment=... [key=value ...]`: a run from configuration to summary.

    --check         the configuration alone, in seconds: starts nothing, reads no file of model or data
    --dry-run       everything that can be checked; starts nothing
    --print-config  the resolved configuration, with either or before the run

This process stays light: it checks everything that can be checked, prepares the run directory, starts the training
process (`recipe.paec.train_worker`), shows its progress, ends it when it hangs, exports the model and sums up.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.paec import checkpoints, doctor, folders, preflight, safety, versions
from recipe.paec.command_line import complain, git_commit, hydra_command, say, with_flags
from recipe.paec.errors import UserError
from recipe.paec.export import export_in_process, holds
from recipe.paec.run_log import FAILURE_FILE, HEARTBEAT_FILE, METRICS_FILE, STOP_FILE, read_metrics, truncate_metrics
from recipe.paec.runs import resolved, resolved_paths, whose
from recipe.paec.summary import closing_lines, step_line
from recipe.paec.supervise import ProcessTree, die_with_parent, printed

RAY_ENDED = {
    "Raylet is terminated": "it was killed, or ran out of memory",
    "Failed to connect to GCS": "its gcs_server was killed, or ran out of memory",
}
"""What Ray prints before it ends a process that has lost a server of this node, and what that means."""
FULL_DISK = 64 << 20
"""Free bytes below which a failure is put down to the disk."""


class Stalled(UserError):
    """The training process gave no sign of life for `run.stall_timeout` seconds, or ran past `run.time_limit`."""


# ---- before and after training ---------------------------------------------------------------------------------------


def run_preparation(command: list[str]) -> None:
    """Make model and data (run.prepare); its progress is shown, UserError if it fails."""
    if subprocess.run(command, check=False, preexec_fn=die_with_parent).returncode != 0:
        raise UserError(f"the preparation failed: {shlex.join(command)}")


def find_resume(config: DictConfig) -> tuple[checkpoints.Checkpoint | None, list[checkpoints.DamagedCheckpoint]]:
    """The newest whole checkpoint to go on from, and the newer ones that are damaged.

    Raises:
        UserError: it belongs to another method, model or data; or there are only damaged ones.
    """
    root = Path(config.trainer.default_local_dir)
    try:
        checkpoint, damaged = checkpoints.latest(root)
    except checkpoints.CheckpointError as error:
        raise UserError(str(error)) from None
    if checkpoint is None:
        if damaged:
            raise UserError(
                *(str(error) for error in damaged),
                f"no checkpoint in {root} is whole: restore one of them from a copy, or start afresh with "
                "run.fresh=true, which deletes the old run",
            )
        return None, []
    wanted = OmegaConf.to_container(config.identity, resolve=True)
    difference = checkpoints.identity_difference(wanted, checkpoint.state["identity"])
    if difference is not None:
        raise UserError(
            f"{checkpoint.folder} belongs to another run: {difference}. Give this run its own name (run.name=...), or "
            "start afresh with run.fresh=true, which deletes the old run"
        )
    return checkpoint, damaged


def write_provenance(config: DictConfig, directory: Path) -> Path:
    """`config.yaml` (resolved) and `versions.json`."""
    temporary = directory / ".config.yaml.tmp"
    temporary.write_text(OmegaConf.to_yaml(config), encoding="utf-8")
    os.replace(temporary, directory / "config.yaml")
    record = {**versions.report(), "python": sys.version.split()[0], "git_commit": git_commit()}
    checkpoints.write_json(directory / "versions.json", record)
    return directory / "config.yaml"


# ---- training --------------------------------------------------------------------------------------------------------


class StopRequest:
    """SIGTERM or Ctrl-C during the training: the first asks for a checkpoint after this step, a second ends it at once.

    Before the first step of this start there is nothing to save, and the first ends it at once, too.
    """

    def __init__(self, directory: Path, progress: Progress):
        self._file, self._progress = directory / STOP_FILE, progress
        self._before: dict[int, Any] = {}
        self.code: int | None = None
        """Exit code of a run that was asked to stop, None: it was not."""

    def __enter__(self) -> StopRequest:
        self._file.unlink(missing_ok=True)
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        self._file.unlink(missing_ok=True)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        ended = self._before[number]
        self._restore()
        if not self._progress.training:
            ended(number, frame)
        self.code = 128 + number
        self._file.touch()
        say(f"{signal.Signals(number).name}: stopping after this step, with a checkpoint; once more: at once")


class Progress:
    """Shows new steps and stages, and notices when there are none."""

    def __init__(self, config: DictConfig, directory: Path):
        self._metrics, self._heartbeat = directory / METRICS_FILE, directory / HEARTBEAT_FILE
        self._total = config.trainer.total_training_steps
        self._timeout, self._limit = config.run.stall_timeout, config.run.time_limit
        self._shown = len(read_metrics(self._metrics))
        self._stage: tuple[str, int] = ("starting", 0)
        self._stage_content = ""
        self._last_sign = self._started = time.monotonic()
        self.training = False
        """Whether this start has trained a step."""
        self._size = 0

    def tick(self) -> None:
        """Print what is new; Stalled after too long a silence."""
        try:
            content = self._heartbeat.read_text(encoding="utf-8")
        except FileNotFoundError:
            content = ""
        if content != self._stage_content:
            self._stage_content, self._last_sign = content, time.monotonic()
            beat = json.loads(content)
            self._stage = (beat["stage"], beat["step"])
            if not self.training:
                say(f"[{time.monotonic() - self._started:5.0f} s] {beat['stage']}")
        size = self._metrics.stat().st_size if self._metrics.is_file() else 0
        if size != self._size:
            self._size, records = size, read_metrics(self._metrics)
            for record in records[self._shown :]:
                say(step_line(record, self._total))
                self._last_sign = time.monotonic()
                self.training = self.training or "actor/entropy" in record
            self._shown = len(records)
        if self._limit is not None and time.monotonic() - self._started > self._limit:
            raise Stalled(
                f"the training process was ended after run.time_limit={self._limit:.0f} s, in stage "
                f"{self._stage[0]!r} of step {self._stage[1]}; the same command goes on from the last checkpoint"
            )
        silence = time.monotonic() - self._last_sign
        if silence > self._timeout:
            raise Stalled(
                f"no sign of life for {silence:.0f} s in stage {self._stage[0]!r} of step {self._stage[1]} "
                "(run.stall_timeout): the training process was ended. A failed weight sync inside vLLM shows up like "
                "this; the log has the details, and the same command goes on from the last checkpoint"
            )


def train(config: DictConfig, config_file: Path, directory: Path) -> tuple[int, int | None]:
    """Run the training process to its end, or until it is asked to stop; UserError if it fails.

    Returns:
        The peak memory of its tree in bytes; the exit code of a run that was asked to stop, else None.
    """
    log = directory / "train.log"
    for stale in (FAILURE_FILE, HEARTBEAT_FILE):
        (directory / stale).unlink(missing_ok=True)
    progress = Progress(config, directory)
    before = log.stat().st_size if log.is_file() else 0
    with safety.private_ray(config.cluster.ray_address, directory) as private:
        env = {**os.environ, **config.cluster.env, **private}
        tree = ProcessTree([sys.executable, "-m", "recipe.paec.train_worker", str(config_file)], log, env)
        try:
            with StopRequest(directory, progress) as stop:
                code = tree.wait(progress.tick)
        except Stalled as stalled:
            raise Stalled(f"{stalled}\nlog: {log}") from None
        finally:
            tree.end()
    if code != 0:
        problems = [failure_of(directory, code, printed(log, before, most=1 << 20))]
        free = shutil.disk_usage(directory).free
        if free < FULL_DISK:
            problems.append(
                f"the disk that holds {directory} is full ({free >> 20} MiB left): make room; the same command goes on "
                "from the last checkpoint"
            )
        raise UserError(*problems, f"the log with all tracebacks: {log}")
    return tree.peak_memory, stop.code


def ray_ended(output: str) -> str | None:
    """One sentence if Ray itself has ended, by what its processes have printed; else None."""
    return next((f"Ray on this node has ended: {why}" for text, why in RAY_ENDED.items() if text in output), None)


def failure_of(directory: Path, code: int, output: str = "") -> str:
    """One sentence on why the training process, which printed `output`, ended with `code`."""
    if lost := ray_ended(output):
        return lost
    try:
        failure = json.loads((directory / FAILURE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # nothing, or what fitted on a full disk
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"the training process {how} and left no reason (killed, or out of memory?)"
    return f"{failure['type']}: {failure['message'].splitlines()[-1] if failure['message'] else 'no message'}"


def export(checkpoint: checkpoints.Checkpoint, directory: Path) -> None:
    """Write the checkpoint to `huggingface/`, unless that is done."""
    target = directory / "huggingface"
    if holds(target, checkpoint.folder, checkpoint.step):
        return
    say(f"exporting the checkpoint of step {checkpoint.step} to {target}")
    export_in_process(checkpoint.folder, target, directory / "export.log")


def dry_run(config: DictConfig, problems: list[str], checkpoint: checkpoints.Checkpoint | None) -> None:
    """Print what would be started, and what is missing."""
    if config.run.prepare:
        say(f"model and data would be made first, unless they are there: python {config.run.prepare}")
    workers = config.cluster.nodes * config.cluster.gpus_per_node
    replicas = workers // config.cluster.tensor_parallel
    say(f"dry run of {config.run.name}: nothing was started. It would start")
    say(f"  Ray on {config.cluster.nodes} node(s), platform {config.cluster.platform}")
    say(
        f"  {workers} FSDP actor worker(s) of {config.model.path}, sequence parallel {config.cluster.sequence_parallel}"
    )
    say(f"  {replicas} vLLM replica(s), tensor parallel {config.cluster.tensor_parallel}")
    if rollout_gpus := config.cluster.rollout_nodes * config.cluster.rollout_gpus_per_node:
        say(f"  {rollout_gpus // config.cluster.tensor_parallel} more on GPUs of their own")
    start = f"from the checkpoint of step {checkpoint.step}" if checkpoint else "at step 0"
    say(f"  training {start} to step {config.trainer.total_training_steps}, in {config.run.directory}")
    if problems:
        raise UserError(*problems)
    say("all checks passed")


def check_with_verl(config: DictConfig) -> list[str]:
    """verl's own validation in a process of its own, for the dry run."""
    config = config.copy()
    with tempfile.TemporaryDirectory(prefix="paec-check-") as scratch:
        config.run.directory = scratch
        file = Path(scratch) / "config.yaml"
        file.write_text(OmegaConf.to_yaml(config), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "recipe.paec.train_worker", str(file), "--check"],
            capture_output=True,
            text=True,
            env={**os.environ, **config.cluster.env},
            check=False,
        )
        return [] if done.returncode == 0 else [failure_of(Path(scratch), done.returncode)]


def check(config: DictConfig) -> None:
    """The configuration alone (`--check`), without torch, verl or any file; UserError for what is wrong with it."""
    config = resolved(config)
    if problems := preflight.check_config(config):
        raise UserError(*problems)
    if config.run.print_config:
        say(OmegaConf.to_yaml(config))
    say(f"the configuration of {config.run.name} is sound; --dry-run looks at model, data and this machine too")


def run(config: DictConfig) -> None:
    """A whole run; UserError for everything a user can mend."""
    config = resolved(config)
    directory, run_of = Path(config.run.directory), (folders.RUN, whose(config), config.run.fresh)
    problems = preflight.check_config(config)
    if not problems and (problem := folders.problem_of(directory, *run_of)):
        problems = [problem]
    if problems:
        raise UserError(*problems)
    problems = doctor.examine(config)
    if config.run.prepare and not config.run.dry_run and not problems:
        run_preparation([sys.executable, *shlex.split(config.run.prepare)])
        config = resolved_paths(config)
        problems = preflight.check_inputs(config)
    with open_dict(config):
        config.identity = preflight.identity(config)
    if config.run.print_config:
        say(OmegaConf.to_yaml(config))
    if config.run.dry_run:
        if config.run.fresh and (sentence := folders.to_be_cleared(directory, folders.RUN)):
            say(f"run.fresh=true {sentence}")
        checkpoint, damaged = (None, []) if config.run.fresh or config.identity.model is None else find_resume(config)
        for error in damaged:
            say(f"{error}; it will not be used")
        dry_run(config, problems or check_with_verl(config), checkpoint)
        return
    if problems:
        raise UserError(*problems)

    held = folders.lock(directory)
    folders.take(directory, *run_of, say)
    try:
        total = config.trainer.total_training_steps
        checkpoint, damaged = find_resume(config)
        for error in damaged:
            say(f"{error}; it is not used, and kept as {checkpoints.set_aside(error.folder)}")
        if checkpoint is not None and checkpoint.step >= total:
            say(f"{config.run.name} is finished: its checkpoint is at step {checkpoint.step} of {total}.")
            say(f"To go on, raise trainer.total_training_steps; to start afresh, add run.fresh=true ({directory}).")
            if config.run.export:
                export(checkpoint, directory)  # a kill may have come before it
            say("\n".join(closing_lines(read_metrics(directory / METRICS_FILE), files_of(directory))))
            return
        root = Path(config.trainer.default_local_dir)
        for removed in checkpoints.remove_incomplete(root):
            say(f"removed {removed}: its save had been interrupted")
        if checkpoint is not None:
            say(f"resuming {config.run.name} after step {checkpoint.step} of {total}")
            with open_dict(config):
                config.trainer.resume_mode = "resume_path"
                config.trainer.resume_from_path = str(checkpoint.folder)
                config.trainer.val_before_train = False
        else:
            say(f"starting {config.run.name}: {total} steps")
        truncate_metrics(directory / METRICS_FILE, checkpoint.step if checkpoint else -1)
        config_file = write_provenance(config, directory)
        say(f"run directory {directory}; everything the workers print goes to train.log there")
        started = time.monotonic()
        peak, stopped = train(config, config_file, directory)
        say(f"training took {time.monotonic() - started:.0f} s, peak memory of all processes {peak / 2**30:.1f} GiB")
        if stopped is not None:
            last, _ = checkpoints.latest(root)
            place = f"after step {last.step} of {total}" if last else "without a checkpoint (trainer.save_freq)"
            say(f"stopped {place}, as asked; the same command goes on from there")
            sys.exit(stopped)
        if config.run.export:
            last, _ = checkpoints.latest(root)
            if last is None:
                say("no checkpoint was saved (trainer.save_freq), so there is nothing to export")
            else:
                export(last, directory)
        say(f"summary of {config.run.name}")
        say("\n".join(closing_lines(read_metrics(directory / METRICS_FILE), files_of(directory))))
    finally:
        for file in safety.scrub(directory):
            say(f"note: a secret of the environment had been printed into {file}; {safety.HIDDEN} is there now")
        held.close()


def files_of(directory: Path) -> dict[str, str]:
    """The results of a run that exist, for the summary."""
    places = {
        "metrics": directory / METRICS_FILE,
        "rollouts": directory / "rollouts",
        "checkpoints": directory / "checkpoints",
        **{f"best checkpoint (score {c.score:.3f})": c.folder for c in checkpoints.best(directory / "checkpoints")[:1]},
        "Hugging Face model": directory / "huggingface",
        "configuration": directory / "config.yaml",
    }
    return {label: str(path) for label, path in places.items() if path.exists()}


def main() -> int:
    """Command line entry; returns the exit code."""
    given = sys.argv[1:]
    arguments = with_flags([a for a in given if a != "--check"], "run.")
    if {"--check", "--dry-run"} <= {*given}:
        return complain(["--check and --dry-run: give one of them; --dry-run checks the configuration too"])
    command = check if "--check" in given else run
    return hydra_command("train", command, arguments, "the same command goes on from the last checkpoint")


if __name__ == "__main__":
    sys.exit(main())
