"""An evaluation as logs of Inspect AI (package inspect_ai), one `.eval` file for each benchmark.

Every response is a sample, with its number as the epoch; both verdicts are scores of it. The results are those of
`scores.json`, and nothing is graded or estimated again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_prep.files import building_directory, on_disk, sha256
from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.compare.evaluations import AGAIN, SCORES_FILE, read_run
from recipe.paec.scoring.verdicts import collect

SAMPLES, DIGEST = "samples.jsonl", "samples_sha256"
STOPPED = {"stop": "stop", "length": "max_tokens"}
"""Finish reason of vLLM -> Inspect's; any other is unknown."""
SAMPLING = ("temperature", "top_p", "top_k", "max_tokens")


def _samples(folder: Path, made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The graded samples of an evaluation; UserError unless they are those that were scored."""
    file = folder / SAMPLES
    if not file.is_file():
        raise UserError(f"{file} does not exist: give the folder of an evaluation")
    if made.get(DIGEST) != sha256(file):
        raise UserError(f"{file}: has changed since it was scored: delete {SCORES_FILE} and evaluate again")
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    collect(samples, str(file))
    return samples


def _sample(sample: Mapping[str, Any], model: str) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        ChatMessageUser,
        ModelOutput,
        ModelUsage,
    )
    from inspect_ai.scorer import CORRECT, INCORRECT, Score

    answer = ChatMessageAssistant(content=sample["response"], source="generate", model=model)
    tokens = sample["tokens"]
    usage = None if tokens is None else ModelUsage(output_tokens=tokens, total_tokens=tokens)
    stopped = STOPPED.get(sample["finish_reason"], "unknown")
    scores = {
        name: Score(
            value=CORRECT if sample[key] else INCORRECT,
            answer=sample["answer"],
            explanation=sample.get("detail") or None,
            metadata={"status": sample["status"], "group": sample["group"]},
        )
        for name, key in (("grader", "correct"), ("strict", "strict"))
    }
    if "score" in sample:
        scores["score"] = Score(value=float(sample["score"]), answer=sample["answer"])
    return EvalSample(
        id=sample["problem"],
        epoch=sample["sample"] + 1,
        input=sample["prompt"],
        target=sample["ground_truth"],
        messages=[ChatMessageUser(content=sample["prompt"]), answer],
        output=ModelOutput(
            model=model, choices=[ChatCompletionChoice(message=answer, stop_reason=stopped)], usage=usage
        ),
        scores=scores,
        metadata={"seed": sample["seed"]},
    )


def _metrics(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    """avg@n, maj@k and pass@k of a benchmark of `scores.json`, each with the bounds of its interval."""
    from inspect_ai.log import EvalMetric

    found = {f"avg@{benchmark['samples']}": benchmark["avg"]}
    found |= {f"{kind}@{k}": estimate for kind in ("maj", "pass") for k, estimate in benchmark[kind].items()}
    return {
        name: EvalMetric(name=name, value=estimate["value"], metadata={key: estimate[key] for key in ("low", "high")})
        for name, estimate in found.items()
    }


def log_of(name: str, scores: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Any:
    """The `inspect_ai.log.EvalLog` of one benchmark.

    Args:
        name: of the benchmark.
        scores: content of scores.json.
        samples: graded samples of that benchmark.
    """
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalScore, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig, ModelUsage

    made, benchmark = scores["provenance"], scores["benchmarks"][name]
    model = str(made["model"] or "unknown")
    protocol = {key: made["protocol"].get(key) for key in SAMPLING}
    if (protocol["top_k"] or 0) < 1:
        protocol["top_k"] = None  # no limit
    tokens = sum(sample["tokens"] or 0 for sample in samples)
    problems = benchmark["problems"]
    about = {"scorer": "recipe.grading", "reducer": "mean", "scored_samples": problems, "unscored_samples": 0}
    strict = {"avg": benchmark["strict_avg"], "samples": benchmark["samples"], "maj": {}, "pass": {}}
    identity = hashlib.sha256(f"{made[DIGEST]}/{name}".encode()).hexdigest()[:22]
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=identity,
            run_id=identity,
            created=made["finished"],
            task=name,
            task_id=identity,
            dataset=EvalDataset(name=name, samples=problems, sample_ids=list(benchmark["per_problem"]), shuffled=False),
            model=model,
            model_generate_config=GenerateConfig(**protocol, seed=made["seed"]),
            config=EvalConfig(epochs=benchmark["samples"], epochs_reducer=["mean"]),
            packages={package: version for package, version in made["versions"].items() if version},
            metadata={"provenance": made, "contamination": scores["contamination"]},
        ),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=len(samples),
            scores=[
                EvalScore(name="grader", metrics=_metrics(benchmark), **about),
                EvalScore(name="strict", metrics=_metrics(strict), **about),
            ],
        ),
        stats=EvalStats(
            completed_at=made["finished"], model_usage={model: ModelUsage(output_tokens=tokens, total_tokens=tokens)}
        ),
        samples=[_sample(sample, model) for sample in samples],
    )


def write_logs(folder: Path, target: Path) -> list[str]:
    """Write the evaluation in `folder` as logs into the new folder `target`; returns the names of the files.

    Raises:
        UserError: inspect_ai is not installed, it is not an evaluation, its samples changed, or `target` is in use.
    """
    if find_spec("inspect_ai") is None:
        raise UserError("--inspect: inspect_ai is not installed in this Python: docs/publish.md says how")
    from inspect_ai.log import write_eval_log

    scores = read_run(folder / SCORES_FILE).scores
    if "finished" not in scores["provenance"]:
        raise UserError(f"{folder / SCORES_FILE}, field finished: missing: {AGAIN}")
    samples = _samples(folder, scores["provenance"])
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not an empty folder: choose a new one, or delete it")
    names = []
    with building_directory(target) as temporary:
        for name in scores["benchmarks"]:
            log = log_of(name, scores, [sample for sample in samples if sample["benchmark"] == name])
            names.append(f"{name.replace('/', '_')}.eval")
            write_eval_log(log, str(temporary / names[-1]))
        on_disk(temporary)
        temporary.rename(target)
    say(f"logs for Inspect AI (inspect view --log-dir {target}): {', '.join(names)}")
    return names
