"""Problems, samples and the files they live in: benchmarks, the journal of an evaluation, other people's samples.

A sample is one response to one problem, a JSON line:

    benchmark, problem, sample      which response: (data source, problem id, 0 <= sample < n)
    prompt, ground_truth            the user's text and what the graders compare with
    response, finish_reason, tokens, seed
    answer, group, correct, strict, status      added by grading (recipe.paec.evaluate)

The journal holds the first and the third line while an evaluation generates: append-only, one line a response.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.contract import ContractError, validate_rows
from recipe.paec.errors import UserError

Key = tuple[str, str, int]
"""(benchmark, problem, sample): what a journal line is found by."""


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


def load_benchmark(path: Path) -> list[Problem]:
    """The problems of a parquet file of the row contract; UserError if it breaks it or mixes data sources."""
    try:
        frame = validate_rows(path)
    except (ContractError, FileNotFoundError) as error:
        raise UserError(f"benchmarks: {error}") from None
    problems = []
    for row in frame.to_dict("records"):
        extra, prompt = row["extra_info"], [dict(turn) for turn in row["prompt"]]
        problems.append(
            Problem(
                benchmark=row["data_source"],
                id=str(extra.get("id") or f"{row['data_source']}-{extra['index']}"),
                prompt=prompt,
                ground_truth=str(row["reward_model"]["ground_truth"]),
                text=str(extra.get("problem") or prompt[-1]["content"]),
            )
        )
    sources = sorted({problem.benchmark for problem in problems})
    if len(sources) > 1:
        raise UserError(
            f"benchmarks: {path} mixes the data sources {', '.join(sources)}: give each benchmark a file of its own"
        )
    repeated = [identity for identity, count in Counter(p.id for p in problems).items() if count > 1]
    if repeated:
        raise UserError(
            f"benchmarks: {path}, field extra_info.id: {repeated[0]!r} occurs more than once: prepare the file again"
        )
    return problems


# ---- the journal -----------------------------------------------------------------------------------------------------


def request_seed(seed: int, key: Key) -> int:
    """Sampling seed of one response: the same whatever is generated beside it, before or after an interruption."""
    digest = hashlib.sha256(json.dumps([seed, *key]).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def read_journal(path: Path) -> dict[Key, dict[str, Any]]:
    """Complete lines of a journal by key; a half-written last line (killed evaluation) is left out."""
    found: dict[Key, dict[str, Any]] = {}
    for record in _complete_lines(path):
        found[record["benchmark"], record["problem"], record["sample"]] = record
    return found


def mend_journal(path: Path) -> None:
    """Cut a half-written last line off, so that appending goes on at the start of a line."""
    if not path.is_file():
        return
    with open(path, "rb+") as stream:
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            stream.truncate(whole)


def _complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)


# ---- other people's samples ------------------------------------------------------------------------------------------

PROMPTS = ("question", "prompt", "input", "problem")
TRUTHS = ("ground_truth", "gts", "answer", "gold", "target")
RESPONSES = ("response", "responses", "output", "outputs", "generation", "generations", "completion", "completions")
"""Names under which sample files of the field keep the problem, the reference and the response(s); the first counts."""


def read_samples(path: Path, problems: Mapping[str, list[Problem]], benchmark: str | None) -> list[dict[str, Any]]:
    """Samples of a JSONL file made elsewhere, in this module's form, without grades.

    Accepted are the lines of an evaluation of this recipe, verl's validation dumps (input, output, gts), and one line a
    problem with a list of responses. A line that names one of `problems` by its id takes prompt and reference from
    there; others need both in the line.

    Args:
        path: the file.
        problems: by benchmark, those that were loaded (may be empty).
        benchmark: data source of lines that do not name one, or None.

    Raises:
        UserError: an unreadable line, a missing field (named with its line), an unknown problem.
    """
    if not path.is_file():
        raise UserError(f"samples: {path}: no such file")
    known = {(problem.benchmark, problem.id): problem for group in problems.values() for problem in group}
    by_text = {(p.benchmark, p.prompt[-1]["content"].strip()): p for p in known.values()}
    by_text |= {(p.benchmark, p.text.strip()): p for p in known.values()}
    counts: Counter[tuple[str, str]] = Counter()
    samples = []
    for number, record in _numbered(path):
        where = f"samples: {path}, line {number}"
        source = record.get("benchmark") or record.get("data_source") or benchmark
        if not isinstance(source, str) or not source:
            raise UserError(f"{where}, field benchmark: missing; add it, or name one benchmark with benchmarks=[...]")
        prompt = _first(record, PROMPTS)
        if isinstance(prompt, list):
            prompt = prompt[-1].get("content", "") if prompt and isinstance(prompt[-1], Mapping) else str(prompt)
        problem = known.get((source, str(record.get("problem")))) or by_text.get((source, str(prompt).strip()))
        truth = problem.ground_truth if problem else _first(record, TRUTHS)
        if source in problems and problem is None:
            raise UserError(
                f"{where}, field problem: {record.get('problem', prompt)!r:.80} is not in the benchmark {source}: "
                "leave benchmarks= out to grade by the references in the file"
            )
        if truth is None or truth == "":
            raise UserError(f"{where}, field ground_truth: missing (also looked for {', '.join(TRUTHS[1:])})")
        responses = _first(record, RESPONSES)
        if responses is None:
            raise UserError(f"{where}, field response: missing (also looked for {', '.join(RESPONSES[1:])})")
        if problem is not None:
            identity = problem.id
        elif _is_ours(record):
            identity = str(record["problem"])
        else:
            identity = hashlib.sha256(str(prompt).encode("utf-8", "replace")).hexdigest()[:12]
        for response in responses if isinstance(responses, list) else [responses]:
            if not isinstance(response, str):
                raise UserError(f"{where}, field response: {type(response).__name__} instead of a string")
            samples.append(
                {
                    "benchmark": source,
                    "problem": identity,
                    "sample": counts[source, identity],
                    "prompt": problem.prompt[-1]["content"] if problem else str(prompt),
                    "ground_truth": str(truth),
                    "response": response,
                    "finish_reason": record.get("finish_reason"),
                    "tokens": record.get("tokens"),
                    "seed": record.get("seed"),
                }
            )
            counts[source, identity] += 1
    if not samples:
        raise UserError(f"samples: {path}: no samples in it")
    return samples


def _is_ours(record: Mapping[str, Any]) -> bool:
    return {"benchmark", "problem", "sample"} <= record.keys()


def _numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8"))
            except ValueError as error:
                raise UserError(f"samples: {path}, line {number}: not JSON ({error})") from None
            if not isinstance(record, dict):
                raise UserError(f"samples: {path}, line {number}: {type(record).__name__} instead of an object")
            yield number, record


def _first(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)
