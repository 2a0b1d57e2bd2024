"""From graded samples to the files of an evaluation: samples, scores, table and provenance."""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from data_prep.files import atomic_write, sha256
from recipe.grading.pool import GraderPool
from recipe.paec.common import versions
from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import write_json
from recipe.paec.common.repository import git_commit
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.evaluate.contamination import DIGESTS, contamination, contamination_lines, digests_of, training_files
from recipe.paec.evaluate.folder import GENERATION, SAMPLES, SCORES, TABLE
from recipe.paec.evaluate.grading import grade
from recipe.paec.evaluate.origin import DIGEST, GENERATED
from recipe.paec.evaluate.targets import Target, revision
from recipe.paec.scoring.display import table
from recipe.paec.scoring.scores import score


def provenance(
    config: DictConfig,
    folder: Path,
    target: Target | None,
    identity: dict[str, Any],
    pool: GraderPool,
    origin: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The full origin of these scores; null for what a file of samples does not contain.

    `origin`: what is known about a file of samples (`recipe.paec.evaluate.origin.own_origin`).
    """
    generated = (
        {
            "model": target.source,
            "revision": revision(target.folder),
            "model_fingerprint": identity["model"],
            "run": target.run.name if target.run is not None else None,
            "step": target.step,
            "samples": None,
            "protocol": identity["protocol"],
            "seed": config.seed,
            "generation": json.loads((folder / GENERATION).read_text(encoding="utf-8")),
        }
        if target is not None
        else {
            **dict.fromkeys(GENERATED),
            "protocol": {"name": "samples file"},
            **(origin or {}),
            "samples": config.samples,
        }
    )
    return {
        "benchmarks": identity["benchmarks"],
        **generated,
        DIGEST: sha256(folder / SAMPLES),
        "grader": {
            "time_limit": pool.time_limit,
            "memory_limit": pool.memory_limit,
            "math-verify": versions.installed("math-verify"),
            "sympy": versions.installed("sympy"),
            **{f"scorer of {name}": scorer for name, scorer in identity.get("scorers", {}).items()},
        },
        "versions": {**versions.report(), "python": platform.python_version()},
        "git_commit": git_commit(),
        "command": list(HydraConfig.get().overrides.task),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write_samples(path: Path, samples: list[dict[str, Any]]) -> None:
    """Write samples as JSON lines, completely or not at all."""
    with atomic_write(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(sample) + "\n" for sample in samples)


def _write(folder: Path, scores: dict[str, Any]) -> str:
    """Write scores.md and finally scores.json; returns the table."""
    text = table(scores) + "\n" + contamination_lines(scores["contamination"])
    with atomic_write(folder / TABLE) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    write_json(folder / SCORES, scores)
    return text


def finished_table(config: DictConfig, folder: Path, target: Target, problems: dict[str, list[Problem]]) -> str:
    """The table of a finished evaluation; contamination by training files named or changed since is found first.

    Raises:
        UserError: there are such files, but no samples any more.
    """
    scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    files = [] if config.trained_on is None else training_files(config, target.run)
    found = scores.get("contamination") or {}
    if files and (files != found.get("trained_on") or digests_of(files) != found.get(DIGESTS)):
        try:
            with open(folder / SAMPLES, encoding="utf-8") as stream:
                samples = [json.loads(line) for line in stream]
        except FileNotFoundError:
            raise UserError(
                f"trained_on: {folder / SAMPLES} does not exist: delete {SCORES} there to grade the responses again"
            ) from None
        scores["contamination"] = contamination(files, samples, problems)
    elif (folder / TABLE).is_file():
        return (folder / TABLE).read_text(encoding="utf-8")
    return _write(folder, scores)


def write_results(
    config: DictConfig,
    folder: Path,
    target: Target | None,
    identity: dict,
    problems: dict,
    samples: list[dict],
    origin: dict[str, Any] | None = None,
) -> None:
    """Grade, score and write samples.jsonl, scores.md and finally scores.json; print the table."""
    with GraderPool(config.grader.workers, scorers=config.reward.scorers) as pool:
        graded = grade(samples, pool, problems)
    write_samples(folder / SAMPLES, graded)
    scores = score(graded)
    scores["provenance"] = provenance(config, folder, target, identity, pool, origin)
    files = training_files(config, target.run if target else None)
    scores["contamination"] = contamination(files, graded, problems)
    say(_write(folder, scores))
    say(f"samples, scores and table: {folder}")
