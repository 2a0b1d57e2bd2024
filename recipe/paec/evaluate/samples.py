"""Samples made elsewhere, converted to the form of this recipe.

A sample is one response to one problem, a JSON line:

    benchmark, problem, sample      which response: (data source, problem id, 0 <= sample < n)
    prompt, ground_truth            the user's text and what the graders compare with
    response, finish_reason, tokens, seed
    answer, group, correct, strict, status      added by grading (recipe.paec.evaluate.grading)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from recipe.grading.sources import OWN_NONE, check_ground_truth, supports, why_not
from recipe.paec.common.errors import UserError
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.scoring.verdicts import check_complete, check_fields

PROMPTS = ("question", "prompt", "input", "problem")
TRUTHS = ("ground_truth", "gts", "answer", "gold", "target")
AMBIGUOUS = ("answer", "gold", "target")
"""Names of the reference of which a file may use one for something else, such as a worked solution."""
RESPONSES = ("response", "responses", "output", "outputs", "generation", "generations", "completion", "completions")
"""Common field names of the problem, the reference and the response(s) in sample files; the first one found is used."""


def read_samples(
    path: Path,
    problems: Mapping[str, list[Problem]],
    benchmark: str | None,
    scorers: Mapping[str, str] = OWN_NONE,
) -> list[dict[str, Any]]:
    """Samples of a JSONL file made elsewhere, in this module's form, without grades.

    Accepts the lines of an evaluation of this recipe, verl's validation dumps (input, output, gts), and one line per
    problem with a list of responses. A line that belongs to one of `problems`, by its id or its text (alone, or within
    a chat template), takes prompt and reference from there; others need both in the line. Lines of this recipe keep
    their sample numbers; the responses of other lines are numbered as they come.

    Args:
        path: the file.
        problems: the loaded problems by benchmark (may be empty). Each needs a response.
        benchmark: data source of lines that do not name one, or None.
        scorers: data source -> scorer (`reward.scorers`).

    Raises:
        UserError: an unreadable line, a missing or bad field (named with its line), an unknown problem, two references
            of one problem, problems with different numbers of samples or without any.
    """
    if not path.is_file():
        raise UserError(f"samples: {path}: does not exist")
    known = {(problem.benchmark, problem.id): problem for group in problems.values() for problem in group}
    by_text = {(p.benchmark, p.prompt[-1]["content"].strip()): p for p in known.values()}
    by_text |= {(p.benchmark, p.text.strip()): p for p in known.values()}
    counts: Counter[tuple[str, str]] = Counter()
    truths: dict[tuple[str, str], str] = {}
    samples, places = [], []
    for number, record in _numbered(path):
        where = f"samples: {path}, line {number}"
        source = record.get("benchmark") or record.get("data_source") or benchmark
        if not isinstance(source, str) or not source:
            raise UserError(
                f"{where}, field benchmark: is missing: add it, or name one benchmark with benchmarks=[...]"
            )
        if not supports(source, scorers):
            raise UserError(f"{where}, field benchmark: {why_not(source)}")
        prompt = _first(record, PROMPTS)
        if isinstance(prompt, list):
            prompt = prompt[-1].get("content", "") if prompt and isinstance(prompt[-1], Mapping) else str(prompt)
        problem = known.get((source, str(record.get("problem")))) or by_text.get((source, str(prompt).strip()))
        if problem is None and isinstance(prompt, str):
            problem = _within(prompt, problems.get(source, []), where)
            if problem is not None:
                by_text[source, prompt.strip()] = problem  # for the next response to it
        if problem is not None:
            identity, prompt, truth = problem.id, problem.prompt[-1]["content"], problem.ground_truth
        elif source in problems:
            raise UserError(
                f"{where}, field problem: {record.get('problem', prompt)!r:.80} is not in the benchmark {source}: "
                "leave benchmarks= out to grade against the references in the file"
            )
        elif prompt is None:
            raise UserError(f"{where}, field problem: is missing: add it (or one of {', '.join(PROMPTS[:-1])})")
        else:
            digest = hashlib.sha256(str(prompt).encode("utf-8", "replace")).hexdigest()[:12]
            identity = str(record["problem"]) if _is_ours(record) else digest
            prompt, truth = str(prompt), _reference(record, source, where, scorers)
        if truths.setdefault((source, identity), truth) != truth:
            raise UserError(
                f"{where}, field ground_truth: {truth!r:.80}, but an earlier line gives this problem "
                f"{truths[source, identity]!r:.80}: correct one of them"
            )
        responses = _first(record, RESPONSES)
        if responses is None or responses == []:
            raise UserError(f"{where}, field response: is missing: add it (or one of {', '.join(RESPONSES[1:])})")
        for response in responses if isinstance(responses, list) else [responses]:
            if not isinstance(response, str):
                raise UserError(f"{where}, field response: must be a string, not {type(response).__name__}")
            sample = {
                "benchmark": source,
                "problem": identity,
                "sample": record["sample"] if _is_ours(record) else counts[source, identity],
                "prompt": prompt,
                "ground_truth": truth,
                "response": response,
                "finish_reason": record.get("finish_reason"),
                "tokens": record.get("tokens"),
                "seed": record.get("seed"),
            }
            check_fields(sample, where, ("sample", "finish_reason", "tokens"))
            samples.append(sample)
            places.append(where)
            counts[source, identity] += 1
    if not samples:
        raise UserError(f"samples: {path}: contains no samples")
    for name, group in problems.items():
        if absent := [problem.id for problem in group if not counts[name, problem.id]]:
            listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            raise UserError(
                f"samples: {path}: no response to {len(absent)} of the {len(group)} problems of {name} ({listed}): add "
                "them, or leave benchmarks= out to score the problems of the file against its own references"
            )
    check_complete([(s["benchmark"], s["problem"], s["sample"]) for s in samples], places, f"samples: {path}")
    # The order within a problem decides maj@k and its ties.
    order = {problem: position for position, problem in enumerate(counts)}
    return sorted(samples, key=lambda s: (order[s["benchmark"], s["problem"]], s["sample"]))


def _within(prompt: str, problems: Iterable[Problem], where: str) -> Problem | None:
    """The problem whose text is in a prompt with its chat template, as verl dumps it; None if there is none."""
    for text_of in (lambda p: p.prompt[-1]["content"].strip(), lambda p: p.text.strip()):
        found = {problem.id: problem for problem in problems if text_of(problem) and text_of(problem) in prompt}
        texts = {text_of(problem) for problem in found.values()}
        # A text that is a part of another one is there because of that one.
        whole = {text for text in texts if not any(text != other and text in other for other in texts)}
        found = {name: problem for name, problem in found.items() if text_of(problem) in whole}
        if len(found) > 1:
            raise UserError(
                f"{where}, field problem: the prompt contains the texts of {len(found)} problems "
                f"({', '.join(found)[:80]}): add the field, with the id of one of them"
            )
        if found:
            return next(iter(found.values()))
    return None


def _reference(record: Mapping[str, Any], source: str, where: str, scorers: Mapping[str, str]) -> str:
    truth = _first(record, TRUTHS)
    given = [name for name in TRUTHS if record.get(name) not in (None, "")]
    if given and given[0] in AMBIGUOUS and (other := next((n for n in given[1:] if record[n] != truth), None)):
        raise UserError(
            f"{where}, fields {given[0]} and {other}: either may be the reference, and they differ: name the one that "
            "is it ground_truth"
        )
    if truth is None or truth == "":
        raise UserError(f"{where}, field ground_truth: is missing: add it (or one of {', '.join(TRUTHS[1:])})")
    number = isinstance(truth, (int, float)) and not isinstance(truth, bool) and math.isfinite(truth)
    if not (isinstance(truth, str) or number):
        raise UserError(f"{where}, field ground_truth: must be a string or a number, not {truth!r:.80}")
    if wrong := check_ground_truth(source, str(truth), scorers):
        raise UserError(f"{where}, field ground_truth: {wrong}")
    return str(truth)


def _is_ours(record: Mapping[str, Any]) -> bool:
    return {"benchmark", "problem", "sample"} <= record.keys()


def _numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise UserError(f"samples: {path}, line {number}: is not UTF-8 ({error}): convert the file") from None
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"samples: {path}, line {number}: is not JSON ({error}): write one JSON object per line"
                ) from None
            if not isinstance(record, dict):
                raise UserError(f"samples: {path}, line {number}: must be a JSON object, not {type(record).__name__}")
            yield number, record


def _first(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)
