"""From responses to results: both graders' verdicts, scores, contamination, provenance, and the files they go into."""

from __future__ import annotations

import datetime
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from data_prep.contamination import find_contamination, problems_of
from data_prep.contract import ContractError
from data_prep.files import atomic_write, sha256
from recipe.grading.pool import GraderPool
from recipe.paec import checkpoints, versions
from recipe.paec.command_line import git_commit, say
from recipe.paec.errors import UserError
from recipe.paec.origin import DIGEST, GENERATED, GENERATION, SAMPLES, SCORES
from recipe.paec.samples import Problem, read_journal
from recipe.paec.scores import heading, percent, score, table
from recipe.paec.targets import Target, revision

TABLE = "scores.md"
GRADE_TOGETHER = 256
"""Responses handed to the graders at once: often enough for a line of progress."""


def grade(samples: list[dict[str, Any]], pool: GraderPool) -> list[dict[str, Any]]:
    """Samples with both graders' verdicts and the groups of equivalent answers, in the order given."""
    graded: list[dict[str, Any]] = []
    started = last = time.monotonic()
    for begin in range(0, len(samples), GRADE_TOGETHER):
        part = samples[begin : begin + GRADE_TOGETHER]
        verdicts = pool.grade((s["benchmark"], s["response"], s["ground_truth"]) for s in part)
        graded += [sample | asdict(verdict) for sample, verdict in zip(part, verdicts, strict=True)]
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(f"  graded {len(graded)}/{len(samples)}")
    problems = by_problem(graded)
    answers = ((benchmark, [s["answer"] for s in of_problem]) for (benchmark, _), of_problem in problems.items())
    for of_problem, numbers in zip(problems.values(), pool.groups(answers), strict=True):
        for sample, number in zip(of_problem, numbers, strict=True):
            sample["group"] = number
    say(f"graded {len(graded)} responses in {time.monotonic() - started:.0f} s")
    if pool.failed_comparisons:
        say(
            f"note: {pool.failed_comparisons} comparisons of two answers had no verdict in time; they count as "
            "different in maj@k"
        )
    return graded


def by_problem(samples: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Samples of each (benchmark, problem), in order."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for sample in samples:
        groups.setdefault((sample["benchmark"], sample["problem"]), []).append(sample)
    return groups


def journaled(problems: dict[str, list[Problem]], journal: Path) -> list[dict[str, Any]]:
    """The journal's responses joined with their problems, in benchmark order."""
    found = read_journal(journal)
    ordered = []
    for group in problems.values():
        for problem in group:
            index = 0
            while (record := found.get((problem.benchmark, problem.id, index))) is not None:
                prompt = {"prompt": problem.prompt[-1]["content"], "ground_truth": problem.ground_truth}
                ordered.append({**{key: record[key] for key in ("benchmark", "problem", "sample")}, **prompt, **record})
                index += 1
    return ordered


# ---- contamination ---------------------------------------------------------------------------------------------------


def training_files(config: DictConfig, run: Path | None) -> list[str]:
    """Files to look for the benchmarks in: `trained_on`, else the run's own if they are still there, else none."""
    if config.trained_on is not None:
        return list(config.trained_on)
    if run is None:
        return []
    files = OmegaConf.load(run / "config.yaml").data.train_files
    files = [files] if isinstance(files, str) else list(files)
    return files if all(Path(file).expanduser().is_file() for file in files) else []


def training_texts(files: list[str]) -> list[str]:
    """The problems of training files; UserError for one that cannot be read."""
    try:
        return [text for file in files for text in problems_of(Path(file).expanduser())]
    except (ContractError, FileNotFoundError) as error:
        raise UserError(f"trained_on: {error}") from None


def contamination(files: list[str], samples: list[dict[str, Any]], problems: dict[str, list[Problem]]) -> dict | None:
    """Benchmark problems with a near-copy in the training files, and avg@n without them; None without files."""
    if not files:
        return None
    texts = {name: [problem.text for problem in group] for name, group in problems.items()}
    found = find_contamination(training_texts(files), texts)
    report = found.report()
    for name, overlap in found.benchmarks.items():
        copied = {problems[name][match.problem].id for match in overlap.copies}
        rest = [sample for sample in samples if sample["benchmark"] == name and sample["problem"] not in copied]
        report["benchmarks"][name] |= {
            "ids": sorted(copied),
            "avg_without": score(rest)["benchmarks"][name]["avg"] if rest else None,
        }
    return {"trained_on": files, **report}


def contamination_lines(found: dict[str, Any] | None) -> str:
    """What is printed below the table."""
    if found is None:
        return "contamination: not checked, the training data is not known (trained_on=[FILE.parquet] checks it)"
    lines = [f"contamination: problems that stand in {', '.join(found['trained_on'])}"]
    for name, of_name in found["benchmarks"].items():
        line = f"  {heading(name)}: {of_name['contaminated']} of {of_name['size']}"
        if of_name["contaminated"] and of_name["avg_without"] is not None:
            line += f"; avg@n without them {percent(of_name['avg_without'])}"
        lines.append(line)
    return "\n".join(lines)


# ---- results ---------------------------------------------------------------------------------------------------------


def provenance(
    config: DictConfig,
    folder: Path,
    target: Target | None,
    identity: dict[str, Any],
    pool: GraderPool,
    origin: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that says where these scores come from; null for what a file of samples does not say.

    `origin`: what is known of a file of samples (`recipe.paec.origin.own_origin`).
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
        },
        "versions": {**versions.report(), "python": platform.python_version()},
        "git_commit": git_commit(),
        "command": list(HydraConfig.get().overrides.task),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write_samples(path: Path, samples: list[dict[str, Any]]) -> None:
    """Samples as JSON lines, whole or not at all."""
    with atomic_write(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(sample) + "\n" for sample in samples)


def write_results(
    config: DictConfig,
    folder: Path,
    target: Target | None,
    identity: dict,
    problems: dict,
    samples: list[dict],
    origin: dict[str, Any] | None = None,
) -> None:
    """Grade, score and write samples.jsonl, scores.md and, last, scores.json; print the table."""
    with GraderPool(config.grader.workers) as pool:
        graded = grade(samples, pool)
    write_samples(folder / SAMPLES, graded)
    scores = score(graded)
    scores["provenance"] = provenance(config, folder, target, identity, pool, origin)
    files = training_files(config, target.run if target else None)
    scores["contamination"] = contamination(files, graded, problems)
    text = table(scores) + "\n" + contamination_lines(scores["contamination"])
    with atomic_write(folder / TABLE) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    checkpoints.write_json(folder / SCORES, scores)
    say(text)
    say(f"samples, scores and table: {folder}")
