"""Benchmark problems that are in the training files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_prep.contamination import find_contamination, problems_of
from data_prep.contract import ContractError
from data_prep.files import sha256
from recipe.paec.common.errors import UserError
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.scoring.display import heading, percent
from recipe.paec.scoring.scores import score

DIGESTS = "trained_on_sha256"
"""Field of an evaluation's contamination; evaluations of earlier versions have none."""


def training_files(config: DictConfig, run: Path | None) -> list[str]:
    """Files to search for the benchmarks: `trained_on`, else the run's own if they still exist, else none."""
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
    for name, of_name in report["ngrams"]["benchmarks"].items():
        of_name["ids"] = sorted(problems[name][match["problem"]].id for match in of_name["matches"])
    return {"trained_on": files, DIGESTS: digests_of(files), **report}


def digests_of(files: list[str]) -> dict[str, str]:
    """SHA-256 of each training file: under the same name there may be another one later."""
    return {file: sha256(Path(file).expanduser()) for file in files}


def contamination_lines(found: dict[str, Any] | None) -> str:
    """What is printed below the table."""
    if found is None:
        return "contamination: not checked, the training data is not known (set trained_on=[FILE.parquet])"
    lines = [f"contamination: problems found in {', '.join(found['trained_on'])}"]
    for name, of_name in found["benchmarks"].items():
        line = f"  {heading(name)}: {of_name['contaminated']} of {of_name['size']}"
        if of_name["contaminated"] and of_name["avg_without"] is not None:
            line += f"; avg@n without them {percent(of_name['avg_without'])}"
        lines.append(line)
    if ngrams := found.get("ngrams"):  # evaluations of earlier versions have none
        lines.append(f"  by the plain check ({ngrams['n']} consecutive words in common):")
        for name, of_name in ngrams["benchmarks"].items():
            short = f" ({of_name['short']} too short to check)" if of_name["short"] else ""
            lines.append(f"  {heading(name)}: {of_name['overlapping']} of {of_name['size']}{short}")
    return "\n".join(lines)
