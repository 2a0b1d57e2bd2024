"""A run of the laboratory on disk: metrics line by line, a checkpoint from which it resumes bit by bit."""

from __future__ import annotations

import io
import json
import shlex
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from recipe.lab import grpo, own_code
from recipe.lab.settings import SAME_RUN, Settings
from recipe.lab.task import Task
from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import replace_file
from recipe.paec.common.records import METRICS_FILE, PROBLEMS_FILE, first_difference
from recipe.paec.run.log import MetricsFile, truncate_metrics
from recipe.paec.run.metric_names import CUT_OFF

STATE_FILE, CONFIG_FILE = "state.pt", "config.yaml"
REMEDY = f"{folder_kinds.LAB.elsewhere}, or start over with {folder_kinds.LAB.fresh}"
"""What to do about a folder with another run."""
MANY_CUT = 0.1
"""Share of the first step's responses without their end from which a warning is given."""


def run(settings: Settings) -> Path:
    """Train, or continue, or leave a finished run as it is; with `fresh`, start over. Returns its folder.

    Raises:
        UserError: the folder holds anything else than this run, or is in use.
    """
    folder, kind = settings.output, folder_kinds.LAB
    if problem := folders.error_of(folder, kind, {}, settings.fresh):
        raise UserError(problem)
    with folders.lock(folder, kind):
        folders.take(folder, kind, {}, settings.fresh, say)
        if not is_finished(settings):
            _train(folder, settings)
    say(f"{folder}: finished, {settings.steps} steps")
    say(f"its curves: paec report {shlex.quote(str(folder))}")
    return folder


def is_finished(settings: Settings, remedy: str = REMEDY) -> bool:
    """Whether the run's folder holds this run, validated as it asks, with all of its steps.

    Raises:
        UserError: it holds another run, one with other code, task, more steps or other validations, or a damaged one;
            the sentence ends with `remedy`.
    """
    folder = settings.output
    if not (folder / STATE_FILE).is_file():
        return False
    content = _load(folder, remedy)
    _check_same(folder, json.loads(content["identity"]), _identity(settings), remedy)
    if file := own_code.changed(json.loads(content.get("own_code", "{}")), settings.own_code):
        raise UserError(
            f"{file} has changed since the run in {folder} began (the whole file is compared, so give each method a "
            f"file of its own): {remedy}"
        )
    trained_on = json.loads(content.get("task_files", "{}"))  # an earlier version recorded none
    if trained_on and (difference := first_difference(trained_on, settings.task_files)):
        raise UserError(f"{settings.task / difference[0]} has changed since the run in {folder} began: {remedy}")
    if content["step"] < settings.steps:
        return False
    there, here = OmegaConf.to_container(OmegaConf.load(folder / CONFIG_FILE)), settings.record
    keys = ("steps", "test_every", "held_out")
    _check_same(folder, *({key: json.dumps(record[key]) for key in keys} for record in (there, here)), remedy)
    return True


def steps_done(folder: Path) -> int:
    """Steps of a run that its checkpoint has; 0 without one."""
    return _load(folder)["step"] if (folder / STATE_FILE).is_file() else 0


def trained_with(folder: Path) -> dict[str, str]:
    """`own_code.hashes_of` when the run last started; empty for the methods of paec_loss."""
    return json.loads(_load(folder).get("own_code", "{}")) if (folder / STATE_FILE).is_file() else {}


def _train(folder: Path, settings: Settings) -> None:
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)  # a seventh of a step: probabilities below 1e-38 are many, and slow
    state = grpo.started(settings)
    task = Task(settings.task, state.policy.positions, settings.max_response_length)
    if settings.held_out and not task.held_out:
        raise UserError(f"held_out=true: {settings.task} has no held-out countdown problems: leave held_out out")
    if (folder / STATE_FILE).is_file():
        restore(state, _load(folder))
        say(f"{folder}: resuming after step {state.step}")
    replace_file(folder / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(settings.record)), sync=True)
    for name in (METRICS_FILE, PROBLEMS_FILE):
        truncate_metrics(folder / name, state.step if state.step else -1)
    file = MetricsFile(folder, written=lambda record: say(progress(record, settings.steps)))
    if state.step == 0 and settings.test_every > 0:
        file.log(_validation(state, settings, task, folder), 0)
    while state.step < settings.steps:
        began = time.perf_counter(), time.process_time()
        metrics = grpo.step(state, settings, task)
        metrics["timing_s/step"], metrics["timing_cpu_s/step"] = (
            time.perf_counter() - began[0],
            time.process_time() - began[1],
        )
        if state.step == 1 and metrics[CUT_OFF] > MANY_CUT:
            say(
                f"warning: {metrics[CUT_OFF]:.0%} of the responses are cut off at "
                f"data.max_response_length={settings.max_response_length}: raise it for this task"
            )
        metrics["perf/throughput"] = metrics["perf/total_num_tokens"] / metrics["timing_s/step"]
        last = state.step == settings.steps
        if settings.test_every > 0 and (last or state.step % settings.test_every == 0):
            metrics |= _validation(state, settings, task, folder)
        file.log(metrics, state.step)
        if last or state.step % settings.save_every == 0:
            save(folder, state, settings)
    file.finish()


def _validation(state: grpo.State, settings: Settings, task: Task, folder: Path) -> dict[str, float]:
    """Metrics of the validation; the counts of every problem go to PROBLEMS_FILE."""
    began, metrics = time.perf_counter(), {}
    for split in ("validation", "held_out") if settings.held_out else ("validation",):
        found = task.validate(
            state.policy,
            settings.test_samples,
            settings.max_response_length,
            settings.test_temperature,
            settings.seed,
            state.step,
            split,
        )
        metrics |= found.metrics
        counts: dict[str, Any] = {"step": state.step, "split": split, "samples": settings.test_samples}
        counts |= {"correct": found.correct, "distinct": found.distinct}
        counts |= {"solutions": found.solutions} if found.solutions is not None else {}
        counts |= {"majority": found.majority} if found.majority is not None else {}
        with open(folder / PROBLEMS_FILE, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(counts) + "\n")
    return {**metrics, "timing_s/testing": time.perf_counter() - began}


def progress(record: dict[str, Any], steps: int) -> str:
    """One line about a step."""
    parts = [f"step {record['step']}/{steps}"]
    shown = {"critic/score/mean": "score", "actor/entropy": "entropy", "response_length/mean": "length"}
    parts += [f"{label} {record[key]:.3f}" for key, label in shown.items() if key in record]
    parts += [f"{key.rpartition('/')[2]} {value:.3f}" for key, value in record.items() if _shown(key)]
    if "timing_s/step" in record:
        parts.append(f"seconds {record['timing_s/step']:.2f}")
    return "  ".join(parts)


def _shown(key: str) -> bool:
    return key.startswith("val/") and ("/pass@" in key or "/distinct@" in key)


# ---- checkpoint ------------------------------------------------------------------------------------------------------


def save(folder: Path, state: grpo.State, settings: Settings) -> None:
    """Write the checkpoint, completely or not at all; plain tensors, numbers and text."""
    content = {
        "step": state.step,
        "drawn": state.drawn,
        "parameters": {name: parameter.detach() for name, parameter in state.policy.parameters.items()},
        "optimizer": state.optimizer.state_dict(),
        "trackers": json.dumps({name: tracker.state_dict() for name, tracker in state.trackers.items()}),
        "identity": json.dumps(_identity(settings)),
        "own_code": json.dumps(settings.own_code),
        "task_files": json.dumps(settings.task_files),
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    replace_file(folder / STATE_FILE, stream.getvalue(), sync=True)


def restore(state: grpo.State, content: dict[str, Any]) -> None:
    """Set `state` to a checkpoint's."""
    with torch.no_grad():
        for name, parameter in state.policy.parameters.items():
            parameter.copy_(content["parameters"][name])
    state.optimizer.load_state_dict(content["optimizer"])
    trackers = json.loads(content["trackers"])
    for name, tracker in state.trackers.items():
        tracker.load_state_dict(trackers[name])
    state.step, state.drawn = content["step"], content["drawn"]


def _load(folder: Path, remedy: str = "delete the folder") -> dict[str, Any]:
    """The checkpoint; UserError, which ends with `remedy`, if it is damaged."""
    file = folder / STATE_FILE
    try:
        content = torch.load(file, weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception:  # a damaged file fails in the unpickler in many ways
        content = None
    if not isinstance(content, dict) or not {"step", "identity"} <= content.keys():
        raise UserError(f"{file} is damaged: {remedy}")
    return content


def _identity(settings: Settings) -> dict[str, str]:
    """What must be equal to continue: every setting but those of SAME_RUN."""
    flat: dict[str, str] = {}

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict) and node:
            for name, value in node.items():
                walk(value, f"{key}.{name}" if key else str(name))
        else:
            flat[key] = json.dumps(node)

    walk({k: v for k, v in settings.record.items() if k not in (*SAME_RUN, "run", "trainer")}, "")
    return flat


def _check_same(folder: Path, there: dict[str, str], here: dict[str, str], remedy: str) -> None:
    """UserError for the first setting in which the run of a folder and the command differ."""
    if difference := first_difference(there, here):
        key, recorded, wanted = difference
        raise UserError(
            f"{folder} holds a run with {key}={recorded or 'nothing'}, but this command has {wanted or 'nothing'}: "
            f"{remedy}"
        )
