"""A run as it is on disk, finished or not: what can be read, and one sentence for each thing that cannot."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.errors import UserError
from recipe.paec.common.records import METRICS_FILE
from recipe.paec.run import checkpoints
from recipe.paec.run.log import FAILURE_FILE, HEARTBEAT_FILE
from recipe.paec.run.metric_names import CUT_OFF
from recipe.paec.run.warning_signs import FINITE

CONFIG_FILE, VERSIONS_FILE = "config.yaml", "versions.json"


@dataclass(frozen=True)
class Status:
    """How far a run is."""

    kind: str
    """finished, running, failed, stopped or empty."""
    sentence: str


@dataclass(frozen=True)
class Run:
    """One run directory."""

    folder: Path
    name: str
    records: tuple[Mapping[str, Any], ...]
    """Lines of metrics.jsonl, one for each step, in order; numbers or None (NaN, inf)."""
    config: Mapping[str, Any]
    """Resolved configuration, empty if it cannot be read."""
    versions: Mapping[str, Any]
    status: Status
    remarks: tuple[str, ...]
    """What is missing, cannot be read or is not finite, one sentence each."""

    def setting(self, path: str) -> Any:
        """A value of the configuration by its dotted path; None if it is not there."""
        return dig(self.config, path)

    @property
    def method(self) -> str | None:
        """The method's name as in `method=`, those of several joined by +; None if it was not recorded."""
        name, target = self.setting("identity.method"), self.setting("method._target_")
        if name is None and isinstance(target, str):  # of the laboratory
            own = target.removeprefix("paec_loss.methods.")
            name = target if own == target else own.partition(".")[0]
        return name and "+".join([str(name), *(self.setting("also") or {})])

    @property
    def last_step(self) -> int | None:
        """The last recorded step, None before the first."""
        return self.records[-1]["step"] if self.records else None


def dig(node: Any, path: str) -> Any:
    """`node["a"]["b"]` of "a.b"; None where there is no such key."""
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run's directory, an empty or broken one included."""
    mark = folder_kinds.mark_of(folder)
    kinds = (folder_kinds.RUN.name, folder_kinds.LAB.name)
    return (folder / METRICS_FILE).is_file() or (mark is not None and mark["kind"] in kinds)


def read_run(folder: Path, name: str | None = None, ended: str | None = None) -> Run:
    """Everything that a report shows of a run.

    Args:
        folder: its directory.
        name: what to call it; None for its own name.
        ended: for the process that holds the run and has just ended it: why it failed, or "" if it did not fail.

    Raises:
        UserError: the directory cannot be read.
    """
    remarks: list[str] = []
    try:
        records = read_records(folder / METRICS_FILE, remarks)
        config = _mapping(folder / CONFIG_FILE, _yaml, remarks)
        mark = folder_kinds.mark_of(folder)
        # The laboratory writes no versions.
        of_lab = mark is not None and mark["kind"] == folder_kinds.LAB.name
        versions = {} if of_lab else _mapping(folder / VERSIONS_FILE, json.loads, remarks)
        remarks += _not_finite(records)
    except PermissionError as error:
        raise UserError(f"{error.filename}: permission denied: run the report as the owner of the run") from None
    own = dig(config, "run.name")
    return Run(
        folder=folder,
        name=name or (own if isinstance(own, str) else folder.resolve().name),
        records=records,
        config=config,
        versions=versions,
        status=status_of(folder, records, config, ended),
        remarks=tuple(remarks),
    )


def read_records(path: Path, remarks: list[str]) -> tuple[dict[str, Any], ...]:
    """The steps of a metrics file, in order; lines that are incomplete or no step are left out with a remark."""
    if not path.is_file():
        remarks.append(f"{path.name} is missing: no step was recorded")
        return ()
    found: dict[int, dict[str, Any]] = {}
    bad, repeated = 0, 0
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = record_of(line)
        if record is not None:
            repeated += record["step"] in found
            found[record["step"]] = record
        elif number == len(lines):
            remarks.append(f"the last line of {path.name} is incomplete, and was left out")
        else:
            bad += 1
    if bad:
        remarks.append(f"{bad} line(s) of {path.name} are not a step's metrics, and were left out")
    if repeated:
        remarks.append(f"{repeated} step(s) are in {path.name} more than once; the last line of each counts")
    if not found:
        remarks.append(f"{path.name} has no complete line: no step was recorded")
    return tuple(found[step] for step in sorted(found))


def _not_finite(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence for each of loss, gradient norm and entropy that was NaN or infinite at some step."""
    found = []
    for key in FINITE:
        steps = [record["step"] for record in records if key in record]
        bad = [record["step"] for record in records if record.get(key, 0.0) is None]
        if bad:
            found.append(f"{key} is NaN or infinite at {len(bad)} of {len(steps)} steps, first at step {bad[0]}")
    return found


def record_of(line: str) -> dict[str, Any] | None:
    """The metrics of a step from a line of metrics.jsonl, numbers or None; None if it is not such a line."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = content.get("step") if isinstance(content, dict) else None
    if not isinstance(step, int) or isinstance(step, bool):
        return None
    return {"step": step, **{_name(key, content): _number(v) for key, v in content.items() if _is_metric(key, v)}}


def _name(key: str, content: Mapping[str, Any]) -> str:
    """Today's name of a metric: what the laboratory once recorded as verl's clip_ratio are the responses cut off."""
    of_verl = "response_length_non_aborted/clip_ratio" in content  # verl's is another share, and never comes alone
    return CUT_OFF if key == "response_length/clip_ratio" and not of_verl else key


def _is_metric(key: str, value: Any) -> bool:
    return key != "step" and (value is None or (isinstance(value, int | float) and not isinstance(value, bool)))


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class _Numbers(yaml.CSafeLoader):
    """YAML as OmegaConf reads it: 5e-05 is a number."""


_Numbers.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Numbers)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _mapping(path: Path, parse: Any, remarks: list[str]) -> Mapping[str, Any]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remarks.append(f"{path.name} is missing")
        return {}
    except ValueError:
        remarks.append(f"{path.name} cannot be read")
        return {}
    if not isinstance(content, dict):
        remarks.append(f"{path.name} does not hold named values")
        return {}
    return content


# ---- status ----------------------------------------------------------------------------------------------------------


def status_of(
    folder: Path, records: Sequence[Mapping[str, Any]], config: Mapping[str, Any], ended: str | None = None
) -> Status:
    """How far a run with these records and this configuration is; `ended` as in `read_run`."""
    step = records[-1]["step"] if records else None
    total = dig(config, "trainer.total_training_steps")
    place = "before the first step" if step is None else f"at step {step}" + (f" of {total}" if total else "")
    failure = folder_kinds.read_json_or_none(folder / FAILURE_FILE)
    if isinstance(total, int) and step is not None and step >= total and _saved(folder, total, config):
        return Status("finished", f"finished: {step} of {total} steps")
    if ended is None and folders.in_use(folder):
        beat = folder_kinds.read_json_or_none(folder / HEARTBEAT_FILE)
        stage = f", in stage {beat['stage']!r}" if isinstance(beat, dict) and isinstance(beat.get("stage"), str) else ""
        return Status("running", f"running {place}{stage}")
    if ended:
        return Status("failed", f"failed {place}: {ended}")
    if isinstance(failure, dict):
        lines = str(failure.get("message") or "no message").strip().splitlines()
        return Status("failed", f"failed {place}: {failure.get('type')}: {lines[-1] if lines else 'no message'}")
    if step is None:
        return Status("empty", "no step was recorded")
    return Status("stopped", f"stopped {place}{_last_sign(folder)}")


def _saved(folder: Path, total: int, config: Mapping[str, Any]) -> bool:
    """Whether the last step's checkpoint is complete, where the run saves any and has not deleted them since."""
    root = folder / "checkpoints"
    saves = dig(config, "trainer.save_freq")
    if not isinstance(saves, int) or saves <= 0 or not root.is_dir():
        return True
    return checkpoints.is_complete(checkpoints.folder_of(root, total))


def _last_sign(folder: Path) -> str:
    beat = folder_kinds.read_json_or_none(folder / HEARTBEAT_FILE)
    if not isinstance(beat, dict) or not isinstance(beat.get("time"), int | float):
        return ""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(beat["time"]))
    return f"; its last heartbeat was at {when}, in stage {beat.get('stage')!r}"
