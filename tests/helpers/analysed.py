"""Samples, evaluations and runs for the tests of the analyses, small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comparison_cases import evaluation

from recipe.paec.analyse.pairs import Pair
from recipe.paec.analyse.sampled import Policy, Problem, problem_of


def counted(*counts: int, n: int = 4) -> dict[str, Problem]:
    """Problems of which only the counts are known."""
    return {str(i): Problem(n, c) for i, c in enumerate(counts)}


def answered(*problems: str) -> dict[str, Problem]:
    """Problems as text, a letter for each sample: its class, right if it is a capital; `-` is no answer."""
    return {
        str(i): problem_of([a.isupper() for a in text], [None if a == "-" else ord(a.lower()) for a in text])
        for i, text in enumerate(problems)
    }


def pair(base: dict[str, Problem], trained: dict[str, Problem]) -> Pair:
    """A base and a trained policy."""
    both = tuple((base[key], trained[key]) for key in sorted(base))
    return Pair("run", "validation", "gsm8k", Policy("step 0", 0, base), Policy("step 9", 9, trained), both)


def sampled_evaluation(folder: Path, problems: dict[str, list[str]], **about: Any) -> Path:
    """An evaluation with its samples; a text for each problem, as in `answered`."""
    counts = {name: [sum(a.isupper() for a in text) for text in of] for name, of in problems.items()}
    evaluation(folder, counts, n=len(next(iter(problems.values()))[0]), **about)
    rows = [
        {
            **{"benchmark": name, "problem": f"{name}-{number}", "sample": i, "response": "x" * 99},
            **{"correct": a.isupper(), "strict": a.isupper(), "status": "ok", "finish_reason": None, "tokens": None},
            "group": None if a == "-" else ord(a.lower()) - ord("a"),
        }
        for name, of in problems.items()
        for number, text in enumerate(of)
        for i, a in enumerate(text)
    ]
    write_lines(folder / "samples.jsonl", rows)
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def dumped(path: Path, problems: dict[str, str], mark: str = "u") -> Path:
    """A validation's responses of a run of the pipeline: prompt -> answers, as in `answered`."""
    rows = [
        {
            **{"input": prompt, "output": "...", "gts": "1", "uid": f"{mark}{number}_{i}_0", "step": 0},
            **{"acc": float(a.isupper()), "pred": "" if a == "-" else str(ord(a.lower()))},
        }
        for number, (prompt, text) in enumerate(problems.items())
        for i, a in enumerate(text)
    ]
    return write_lines(path, rows)


def lab_run(folder: Path, counts: dict[int, list[int]], n: int = 4, entropies: dict[int, float] | None = None) -> Path:
    """A run of the laboratory: its validations' counts by step."""
    rows, records = [], []
    for step, correct in counts.items():
        rows.append({"step": step, "split": "validation", "samples": n, "correct": correct, "distinct": correct})
        record = {"step": step, f"val/gsm8k/avg@{n}": sum(correct) / n / len(correct)}
        if entropies:
            record["val/gsm8k/entropy"] = entropies[step]
        records.append(record)
    write_lines(folder / "problems.jsonl", rows)
    write_lines(folder / "metrics.jsonl", records)
    return folder
