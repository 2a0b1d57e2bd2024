"""Benchmarks and their problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data_prep.contract import ContractError, validate_rows
from data_prep.sets import DATA_SETS
from recipe.grading.sources import OWN_NONE, check_ground_truth, supports, why_not
from recipe.paec.common.errors import UserError
from recipe.paec.config import values


@dataclass(frozen=True)
class Problem:
    """One row of a benchmark."""

    benchmark: str
    """`data_source` of the row."""
    id: str
    """`extra_info.id`, or the data source and `extra_info.index`; unique within the benchmark."""
    prompt: list[dict[str, str]]
    """Chat messages."""
    ground_truth: str
    text: str
    """The problem without a template, for the contamination check."""
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """`extra_info` of the row, for a scorer from outside."""

    def asked(self) -> dict[str, Any]:
        """What the model is asked and what its answer is compared with: all fields but `extra`."""
        return {name: value for name, value in vars(self).items() if name != "extra"}


def load_benchmark(path: Path, scorers: Mapping[str, str] = OWN_NONE) -> list[Problem]:
    """The problems of a parquet file of the row contract; `scorers`: data source -> scorer (`reward.scorers`).

    Raises:
        UserError: it breaks the contract or mixes data sources, or no grader can read its references.
    """
    try:
        frame = validate_rows(path)
    except (ContractError, FileNotFoundError) as error:
        raise UserError(f"benchmarks: {error}") from None
    problems = []
    for number, row in enumerate(frame.to_dict("records")):
        extra, prompt = row["extra_info"], [dict(turn) for turn in row["prompt"]]
        problems.append(
            Problem(
                benchmark=row["data_source"],
                id=str(extra.get("id") or f"{row['data_source']}-{extra['index']}"),
                prompt=prompt,
                ground_truth=reference_of(row["reward_model"], f"benchmarks: {path}, row {number}"),
                text=str(extra.get("problem") or prompt[-1]["content"]),
                extra=extra,
            )
        )
    sources = sorted({problem.benchmark for problem in problems})
    if len(sources) > 1:
        raise UserError(
            f"benchmarks: {path} mixes the data sources {', '.join(sources)}: give each benchmark its own file"
        )
    repeated = [identity for identity, count in Counter(p.id for p in problems).items() if count > 1]
    if repeated:
        raise UserError(
            f"benchmarks: {path}, field extra_info.id: {repeated[0]!r} occurs more than once: prepare the file again"
        )
    if not supports(sources[0], scorers):
        raise UserError(f"benchmarks: {path}, field data_source: {why_not(sources[0])}")
    for row, problem in enumerate(problems):
        if wrong := check_ground_truth(problem.benchmark, problem.ground_truth, scorers):
            raise UserError(
                f"benchmarks: {path}, row {row}, field reward_model.ground_truth: {wrong}: prepare the file again"
            )
    return problems


def reference_of(reward_model: Mapping[str, Any], where: str) -> str:
    """The reference of a row, text or a number, as text; UserError for anything else, which no grader reads."""
    found = reward_model["ground_truth"]
    if not isinstance(found, str | Real):
        kind = type(found.tolist() if hasattr(found, "tolist") else found).__name__
        raise UserError(
            f"{where}, field reward_model.ground_truth: {kind} instead of a string: prepare the file again, with JSON "
            "as the reference (paec data rows writes it)"
        )
    return str(found)


def problems_in(samples: Iterable[Mapping[str, Any]]) -> dict[str, list[Problem]]:
    """The problems of samples without a benchmark file, by benchmark."""
    found: dict[tuple[str, str], Problem] = {}
    for s in samples:
        key, turn = (s["benchmark"], s["problem"]), {"role": "user", "content": s["prompt"]}
        found.setdefault(key, Problem(*key, [turn], s["ground_truth"], s["prompt"]))
    groups: dict[str, list[Problem]] = {}
    for (benchmark, _), problem in sorted(found.items()):
        groups.setdefault(benchmark, []).append(problem)
    return groups


def find_benchmarks(config: DictConfig) -> dict[str, Path]:
    """Parquet file of every requested benchmark, in the requested order."""
    files = {}
    for entry in config.benchmarks:
        path = Path(entry).expanduser()
        if path.suffix != ".parquet":
            path = Path(config.data_root).expanduser() / entry / "test.parquet"
            if not path.is_file():
                if entry not in DATA_SETS:
                    known = [name for name, data_set in DATA_SETS.items() if "test" in data_set.counts]
                    hint = values.closest(entry, known, "did you mean {}? ")
                    raise UserError(
                        f"benchmarks: {entry}: {path} does not exist, and no data set has this name: {hint}The data "
                        f"sets are {', '.join(known)}; give other files by their path, ending in .parquet"
                    )
                raise UserError(
                    f"benchmarks: {path} does not exist: create it with python -m data_prep {entry} --output "
                    f"{path.parent} (python -m data_prep --list shows all sets); give other files by their path, "
                    "ending in .parquet"
                )
        files[str(entry)] = path
    return files


def load_problems(files: dict[str, Path], scorers: Mapping[str, str] = OWN_NONE) -> dict[str, list[Problem]]:
    """Problems by benchmark (data source); UserError for bad files, a benchmark named twice.

    `scorers`: data source -> scorer (`reward.scorers`).
    """
    loaded: dict[str, list[Problem]] = {}
    for path in files.values():
        problems = load_benchmark(path, scorers)
        name = problems[0].benchmark
        if name in loaded:
            raise UserError(
                f"benchmarks: {path} contains {name}, and so does another file: give each benchmark only once"
            )
        loaded[name] = problems
    return loaded
