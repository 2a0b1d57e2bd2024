"""An evaluation's folder: its files, its identity, its lock."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from recipe.grading.pool import plain_extra
from recipe.grading.scorers import is_function
from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import write_json
from recipe.paec.common.model_files import fingerprint
from recipe.paec.common.records import first_difference
from recipe.paec.doctor import node_folders
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.evaluate.settings import as_trained
from recipe.paec.evaluate.targets import Target

EVALUATION, GENERATION, JOURNAL, SAMPLES, SCORES = (
    "evaluation.json",
    "generation.json",
    "journal.jsonl",
    "samples.jsonl",
    "scores.json",
)

TABLE = "scores.md"

JOB, CURVE, PICTURE = "job.json", "curve.json", "curve.png"


def label_of(config: DictConfig, problems: Iterable[str]) -> str:
    """Protocol with whatever the command line changed in it, seed and benchmarks: a name for folders."""
    changed = [
        o.lstrip("+").removeprefix("protocol.")
        for o in sorted(HydraConfig.get().overrides.task)
        if o.lstrip("+").startswith(("protocol.", "seed="))
    ]
    text = re.sub(r"[^A-Za-z0-9=.,_-]", "_", ",".join([config.protocol.name, *changed]) + "-" + ",".join(problems))
    return text if len(text) <= 120 else text[:100] + hashlib.sha256(text.encode()).hexdigest()[:12]


def digests(problems: dict[str, list[Problem]], scorers: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of every benchmark's problems: prompts, references and their order.

    If `scorers` (`reward.scorers`) has a function for it, also of what the function reads in `extra_info`.
    """
    found = {}
    for name, group in problems.items():
        content = [problem.asked() for problem in group]
        if is_function(scorers.get(name, "")):
            content = [asked | {"extra": _read_by_scorer(p)} for asked, p in zip(content, group, strict=True)]
        found[name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return found


def _read_by_scorer(problem: Problem) -> dict[str, Any]:
    place = ("index", "source", "template")  # where the row comes from; the prompt shows the template
    return {name: value for name, value in plain_extra(problem.extra).items() if name not in place}


def scorers_of(config: DictConfig, problems: Iterable[str]) -> dict[str, dict[str, str]]:
    """{"scorers": those of the configuration, by benchmark} as part of an identity; empty if it names none of them."""
    found = {name: config.reward.scorers[name] for name in problems if name in config.reward.scorers}
    return {"scorers": found} if found else {}


def identity_of(config: DictConfig, target: Target, problems: dict[str, list[Problem]]) -> dict[str, Any]:
    """What all responses of one evaluation have in common."""
    return {
        "model": fingerprint(target.folder),
        "protocol": OmegaConf.to_container(config.protocol),
        "seed": config.seed,
        "chat_template": config.chat_template,
        "context_length": config.context_length,
        "dtype": config.engine.dtype,
        "benchmarks": digests(problems, config.reward.scorers),
        **told_of(config),
        **scorers_of(config, problems),
    }


def told_of(config: DictConfig) -> dict[str, dict[str, Any]]:
    """{"apply_chat_template_kwargs": what the chat template is told} as part of an identity; empty if it is nothing."""
    told = OmegaConf.to_container(config.apply_chat_template_kwargs)
    return {"apply_chat_template_kwargs": told} if told else {}


def error_of(folder: Path, identity: dict[str, Any], fresh: bool, kind: folder_kinds.Kind) -> str | None:
    """Why the evaluation `identity` cannot be in `folder`, None if it can; touches nothing.

    The folder contains something else, or without `fresh` another evaluation: then the first difference is named.
    """
    if problem := folders.error_of(folder, kind, {}, fresh):
        return problem
    file = folder / EVALUATION
    if fresh or not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        return _damaged(file, str(error), kind)
    if not isinstance(found, dict):
        return _damaged(file, "it must be a JSON object", kind)
    # A scorer first: the hashes of the benchmarks depend on it.
    scorers = [{key: value for key, value in one.items() if key == "scorers"} for one in (found, identity)]
    if (difference := first_difference(*scorers) or first_difference(found, identity)) is None:
        return None
    key, recorded, wanted = difference
    return (
        f"{folder} contains another evaluation: its {key} is {recorded!r:.200}, but this command has {wanted!r:.200}: "
        f"choose another folder with output=..., or start over with {kind.fresh}, which deletes it"
    )


def _damaged(file: Path, why: str, kind: folder_kinds.Kind) -> str:
    return f"{file} is damaged ({why}): start over with {kind.fresh}, or {kind.elsewhere}"


def continue_or_start(
    folder: Path, identity: dict[str, Any], fresh: bool, kind: folder_kinds.Kind = folder_kinds.EVALUATION
) -> None:
    """Record the identity in an empty folder (locked by the caller), and check it in a non-empty one.

    Args:
        fresh: first delete the evaluation in the folder, and nothing but an evaluation.
        kind: whether it is an evaluation or a scoring of prompts.

    Raises:
        UserError: of `error_of`; nothing was deleted.
    """
    if problem := error_of(folder, identity, fresh, kind):
        raise UserError(problem)
    folders.take(folder, kind, {}, fresh, say)
    if not (folder / EVALUATION).is_file():
        write_json(folder / EVALUATION, identity)


def refuse(
    folder: Path, identity: dict[str, Any], fresh: bool, kind: folder_kinds.Kind = folder_kinds.EVALUATION
) -> None:
    """UserError for a folder that `continue_or_start` would refuse, before anything is written there."""
    if problem := error_of(folder, identity, fresh, kind):
        raise UserError(problem)


def output_errors(config: DictConfig, targets: list[Target], problems: dict[str, list[Problem]]) -> list[str]:
    """Why the results cannot be written to their folders, one sentence each; tests writing next to new folders."""
    found = []
    for target in targets:
        identity = identity_of(as_trained(config, target), target, problems)
        found.append(
            error_of(target.output, identity, config.fresh, folder_kinds.EVALUATION) or _unwritable(target.output)
        )
    if len(targets) > 1:
        found.append(curve_error(targets[0].output.parent))
    return list(dict.fromkeys(problem for problem in found if problem))


def _unwritable(folder: Path) -> str | None:
    place = node_folders.existing(folder.absolute())
    if not os.path.lexists(folder) and place != folder.absolute():
        below = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.parent == place)
        if os.path.lexists(below):
            return f"{below} is not a folder, so {folder} cannot be created: choose another folder with output=..."
    if reason := node_folders.unwritable(place):
        return f"{place} is not writable ({reason}): choose another folder with output=..."
    return None


def curve_error(folder: Path) -> str | None:
    """Why no curve can be written into `folder`, the parent of the steps: files of others have its names."""
    file = folder / CURVE
    try:
        ours = {"run", "steps"} == json.loads(file.read_text(encoding="utf-8")).keys()
    except (FileNotFoundError, NotADirectoryError):
        ours = not (folder / PICTURE).exists()
    except (OSError, ValueError, AttributeError):
        ours = False
    if ours:
        return None
    there = file if file.exists() else folder / PICTURE
    return f"{there} exists and is not a curve of an evaluation: move it away, or choose another folder with output=..."
