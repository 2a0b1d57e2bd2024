"""`python -m recipe.paec.train experiment=... [key=value ...]`: a run from configuration to summary.

    --check         only the configuration, in seconds: starts nothing, reads no file of model or data
    --dry-run       everything that can be checked; starts nothing
    --print-config  the resolved configuration, alone or with either; starts nothing

This process stays light: it checks everything that can be checked, prepares the run directory, starts the training
process (`recipe.paec.driver.process`), shows its progress, ends it when it hangs, exports the model and sums up.
"""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.console import asked_for_help, complain, say
from recipe.paec.common.early import Early, started_early
from recipe.paec.common.errors import UserError
from recipe.paec.common.process_tree import run_preparation
from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.paec.config import rules, verl_rules
from recipe.paec.config.command_line import hydra_command, with_flags
from recipe.paec.config.identity import identity
from recipe.paec.config.resolve import folder_mark, resolved, resolved_paths
from recipe.paec.doctor import examine, inputs
from recipe.paec.export.huggingface import export_in_process, holds
from recipe.paec.run import checkpoints, token_record
from recipe.paec.run.log import truncate_metrics
from recipe.paec.run.prompt_record import PROMPTS_FILE
from recipe.paec.run.reference_run import absent, grpo_of
from recipe.paec.run.resume import find_resume, write_provenance
from recipe.paec.run.summary import closing_lines
from recipe.paec.train.alert import Alerts, withhold
from recipe.paec.train.dry_run import check_with_verl, dry_run
from recipe.paec.train.watch import DRIVER, train

USAGE = """
usage: paec train experiment=NAME [key=value ...] [--check | --dry-run] [--print-config]
Trains a policy: checks everything first, resumes from the last checkpoint, exports the model, prints a summary.
  experiment=NAME   a file of configs/experiment: tiny_cpu, tiny_gpu, qwen0.6b_gsm8k, qwen1.5b, qwen7b, ...
  method=NAME       the entropy method: paec, none, clip_cov, ... (docs/methods.md), or the import path of your own
                    class; method.FIELD=VALUE sets a field
  --check           checks only the configuration, in seconds
  --dry-run         also checks model, data and this machine, and starts nothing
  --print-config    prints the resolved configuration, and starts nothing
  --cfg job         prints every key with its default; --hydra-help shows Hydra's own options
example: paec train experiment=tiny_cpu method=clip_cov seed=1 run.name=first
"""


def export_model(checkpoint: checkpoints.Checkpoint, directory: Path) -> None:
    """Write the checkpoint to `huggingface/`, unless that is done."""
    target = directory / "huggingface"
    if holds(target, checkpoint.folder, checkpoint.step):
        return
    say(f"exporting the checkpoint of step {checkpoint.step} to {target}")
    export_in_process(checkpoint.folder, target, directory / "export.log")


def write_report(directory: Path, ended: str = "") -> None:
    """Write the run's report; a run does not fail because of it.

    Args:
        directory: the run's directory.
        ended: why the run failed, "" if it did not.
    """
    try:
        from recipe.paec.report.command import report_of  # imports jinja2 and numpy, which nothing else here needs

        report_of(directory, ended)
    except Exception as error:
        say(f"no report was written ({type(error).__name__}: {error}); paec report {directory} tries again")


def check_only(config: DictConfig) -> None:
    """Check only the configuration (`--check`), without torch, verl or any file; UserError for its errors."""
    config = resolved(config)
    withhold(config)
    if errors := rules.check_config(config):
        raise UserError(*errors)
    for note in verl_rules.notes(config):
        say(f"note: {note}")
    if config.run.print_config:
        say(OmegaConf.to_yaml(config))
    say(f"the configuration of {config.run.name} is valid; --dry-run also checks model, data and this machine")


def run(config: DictConfig) -> None:
    """A complete run; raises UserError for anything the user can fix."""
    config = resolved(config)
    alert_url = withhold(config)
    directory = Path(config.run.directory)
    errors = rules.check_config(config)
    if config.run.print_config and not config.run.dry_run and not errors:
        say(OmegaConf.to_yaml(config))
        return
    if not errors and (problem := folders.error_of(directory, folder_kinds.RUN, folder_mark(config), config.run.fresh)):
        errors = [problem]
    if errors:
        raise UserError(*errors)
    early = nullcontext() if config.run.dry_run else started_early(DRIVER, config.cluster)
    with early as process:
        run_checked(config, alert_url, process)


def run_checked(config: DictConfig, alert_url: str | None, early: Early | None) -> None:
    """A run whose configuration is valid; `early`: its training process, if it was started already."""
    directory = Path(config.run.directory)
    errors = examine.examine(config)
    if config.run.prepare_command and not config.run.dry_run and not errors:
        run_preparation([sys.executable, *shlex.split(config.run.prepare_command)])
        config = resolved_paths(config)
        errors = inputs.check_inputs(config)
    with open_dict(config):
        config.identity = identity(config)
    if config.run.print_config:
        say(OmegaConf.to_yaml(config))
    if config.run.dry_run:
        _dry_run(config, errors)
        return
    if errors:
        raise UserError(*errors)
    with folders.held(directory, folder_kinds.RUN, say):
        folders.take(directory, folder_kinds.RUN, folder_mark(config), config.run.fresh, say)
        checkpoint, damaged = find_resume(config)
        for error in damaged:
            say(f"{error}; it is not used, and was moved to {checkpoints.set_aside(error.folder)}")
        if checkpoint is not None and checkpoint.step >= config.trainer.total_training_steps:
            _finish_again(config, checkpoint)
            return
        _continue_from(config, checkpoint)
        config_file = write_provenance(config, directory)
        say(f"run directory {directory}; the workers' output goes to train.log there")
        with Alerts(alert_url, str(config.run.name)) as alerts:
            train_and_sum_up(config, config_file, alerts, early)


def _dry_run(config: DictConfig, errors: list[str]) -> None:
    """Say what a run would begin with, and which `errors` it would have; starts and changes nothing."""
    directory = Path(config.run.directory)
    if config.run.fresh and (sentence := folders.to_be_cleared(directory, folder_kinds.RUN)):
        say(f"run.fresh=true {sentence}")
    checkpoint, damaged = (None, []) if config.run.fresh or config.identity.model is None else find_resume(config)
    for error in damaged:
        say(f"{error}; it will not be used")
    dry_run(config, errors or check_with_verl(config), checkpoint)


def _finish_again(config: DictConfig, checkpoint: checkpoints.Checkpoint) -> None:
    """Export, report and summarize a run that has trained all its steps: it may have been killed before that."""
    directory, total = Path(config.run.directory), config.trainer.total_training_steps
    say(f"{config.run.name} is finished: its checkpoint is at step {checkpoint.step} of {total}.")
    say(f"To train longer, raise trainer.total_training_steps; to start over, add run.fresh=true ({directory}).")
    if config.run.export:
        export_model(checkpoint, directory)
    write_report(directory)
    summarize(config, directory)


def _continue_from(config: DictConfig, checkpoint: checkpoints.Checkpoint | None) -> None:
    """Set verl's keys of resuming, and remove what an earlier start recorded after the checkpoint; None: all of it."""
    directory, total = Path(config.run.directory), config.trainer.total_training_steps
    for removed in checkpoints.remove_incomplete(Path(config.trainer.default_local_dir)):
        say(f"removed {removed}: its save was interrupted")
    if checkpoint is not None:
        say(f"resuming {config.run.name} after step {checkpoint.step} of {total}")
        with open_dict(config):
            config.trainer.resume_mode = "resume_path"
            config.trainer.resume_from_path = str(checkpoint.folder)
            config.trainer.val_before_train = False
    else:
        say(f"starting {config.run.name}: {total} steps")
    last_step = checkpoint.step if checkpoint else -1
    for name in (METRICS_FILE, PROMPTS_FILE):
        truncate_metrics(directory / name, last_step)
    token_record.cut(directory, last_step)


def train_and_sum_up(config: DictConfig, config_file: Path, alerts: Alerts, early: Early | None) -> None:
    """Train, export, report and summarize; exits with the code of a run that was asked to stop."""
    directory, root = Path(config.run.directory), Path(config.trainer.default_local_dir)
    total = config.trainer.total_training_steps
    started = time.monotonic()
    try:
        peak, stopped = train(config, config_file, alerts, early)
    except UserError as error:
        write_report(directory, ended=error.errors[0])
        raise
    say(f"training took {time.monotonic() - started:.0f} s, peak memory of all processes {peak / 2**30:.1f} GiB")
    last, _ = checkpoints.latest(root) if stopped is not None or config.run.export else (None, [])
    if stopped is not None:
        where = f"after step {last.step} of {total}" if last else "without a checkpoint (trainer.save_freq)"
        say(f"stopped {where}, as requested; {folder_kinds.RUN.same_command(config.run.fresh)} resumes")
        write_report(directory)
        alerts.post("end", f"stopped {where}, as requested")
        sys.exit(stopped)
    if config.run.export:
        if last is None:
            say("no checkpoint was saved (trainer.save_freq), so there is nothing to export")
        else:
            export_model(last, directory)
    write_report(directory)
    say(f"summary of {config.run.name}")
    summarize(config, directory)
    alerts.post("end", f"finished: {total} of {total} steps")


def summarize(config: DictConfig, directory: Path) -> None:
    """Print the summary of a finished run."""
    records = read_metrics(directory / METRICS_FILE)
    lines = closing_lines(records, files_of(directory), config, grpo_of(config)) + absent(config)
    say("\n".join(lines))


def files_of(directory: Path) -> dict[str, str]:
    """The existing results of a run, for the summary."""
    places = {
        "metrics": directory / METRICS_FILE,
        "rollouts": directory / "rollouts",
        "token statistics": directory / "tokens",
        "checkpoints": directory / "checkpoints",
        **{f"best checkpoint (score {c.score:.3f})": c.folder for c in checkpoints.best(directory / "checkpoints")[:1]},
        "Hugging Face model": directory / "huggingface",
        "report": directory / "report.html",
        "configuration": directory / "config.yaml",
    }
    return {label: str(path) for label, path in places.items() if path.exists()}


def main() -> int:
    """Command line entry; returns the exit code."""
    if asked_for_help(sys.argv[1:], USAGE):
        return 0
    given = sys.argv[1:]
    arguments = with_flags([a for a in given if a != "--check"], "run.")
    if {"--check", "--dry-run"} <= {*given}:
        return complain(["--check and --dry-run: give only one; --dry-run also checks the configuration"])
    command = check_only if "--check" in given else run
    same = folder_kinds.RUN.same_command(folder_kinds.RUN.fresh in arguments)
    return hydra_command("train", command, arguments, f"{same} resumes from the last checkpoint")
