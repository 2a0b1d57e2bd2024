"""Runs of the pipeline: their records, whether they agree with the laboratory's, and the methods trained with it.

    python -m benchmarks.lab.pipeline RUN [RUN ...]

writes a record of each finished run of `paec train` or `paec grid` on countdown to benchmarks/results/pipeline, in the
laboratory's form: the counts of every validation problem, and training metrics averaged between validations.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from benchmarks.lab import other_tasks
from benchmarks.lab.comparison import differences
from benchmarks.lab.figures import draw, shows
from benchmarks.lab.records import (
    BASELINE,
    PAEC,
    SAMPLES,
    SOURCE,
    Runs,
    comparable,
    interval,
    read,
    where_and_when,
    write,
)
from recipe.lab.sweep import averaged
from recipe.paec.common.errors import UserError
from recipe.paec.common.records import METRICS_FILE, read_metrics
from recipe.paec.common.repository import REPOSITORY
from recipe.paec.report.runs import read_run
from recipe.paec.scoring.two_level import two_level_difference

RECORDS = REPOSITORY / "benchmarks" / "results" / "pipeline"
VALIDATION = REPOSITORY / "data_prep/prepared/countdown/data/validation.parquet"
FIGURE = "results_pipeline.svg"
ENTROPY = f"val/{SOURCE}/entropy"
COMPARED = (("accuracy", 3), ("pass@32", 3), ("expressions", 2))
"""What the validations of both are compared by, with decimals."""
GAINS = (
    *(("accuracy", "accuracy", 3), ("last pass@32", "pass@32", 3), ("last expressions", "expressions", 2)),
    *(("equal pass@32", "pass@32 at equal accuracy", 3), ("equal expressions", "expressions at equal accuracy", 2)),
)
"""Differences of two methods, their words and decimals."""
TRAINING = (("critic/score/mean", "training score"), ("actor/entropy", "token entropy"))


def record_of(folder: Path) -> dict[str, Any]:
    """The record of a finished run. The pipeline does not measure the entropy of its validations: in its place is the
    mean of `actor/entropy` over the steps since the validation before; at step 0, that of the first step.

    Raises:
        UserError: the run has not finished, or has no validation of countdown with SAMPLES responses.
    """
    run = read_run(folder)
    if run.status.kind != "finished":
        raise UserError(f"{folder}: {run.status.sentence}: only finished runs are recorded")
    lines = read_metrics(folder / METRICS_FILE)
    steps = [line["step"] for line in lines if any(key.startswith(f"val/{SOURCE}/") for key in line)]
    if not steps:
        raise UserError(f"{folder}: has no validation of {SOURCE}: set trainer.test_freq and data@data=countdown")
    overrides = [o for o in run.setting("run.overrides") if not o.startswith("run.")]
    method = [o.removeprefix("method=") for o in overrides if o.startswith("method=")] or ["paec"]
    fields = [o.removeprefix("method.") for o in overrides if o.startswith("method.")]
    prompts = validation_prompts()
    found = [problems_of(folder / "validation" / f"{step}.jsonl", prompts) for step in steps]
    between = averaged(lines, steps)
    entropy = [line["actor/entropy"] for line in lines if "actor/entropy" in line][:1] + between["actor/entropy"]
    return {
        "name": f"{'.'.join([*method, *fields])}-seed{run.setting('seed')}",
        "command": ["paec", "train", *overrides],
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "steps": lines[-1]["step"],
        "validation": {"step": steps, ENTROPY: [round(value, 5) for value in entropy]},
        "training": between,
        "problems": {"validation": {key: [one[key] for one in found] for key in ("correct", "distinct")}},
    }


def problems_of(file: Path, prompts: Sequence[str]) -> dict[str, list[int]]:
    """Correct and different correct responses to each problem of a dumped validation, in the order of `prompts`.

    Raises:
        UserError: the problems are others, or one does not have SAMPLES responses.
    """
    answers: dict[str, list[str | None]] = {prompt: [] for prompt in prompts}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = row["input"].partition("\n")[2].rpartition("\nassistant")[0]
        if prompt not in answers:
            raise UserError(f"{file}: {prompt!r} is not a problem of {VALIDATION}: use runs of the quick start's data")
        answers[prompt].append(row["pred"].replace(" ", "") if row["acc"] else None)
    wrong = next((n for n in map(len, answers.values()) if n != SAMPLES), None)
    if wrong is not None:
        need = f"set actor_rollout_ref.rollout.val_kwargs.n={SAMPLES}, and validate on all problems"
        raise UserError(f"{file}: a problem has {wrong} responses: {need}")
    right = [[answer for answer in of if answer is not None] for of in answers.values()]
    return {"correct": [len(of) for of in right], "distinct": [len({*of}) for of in right]}


def validation_prompts() -> list[str]:
    """The quick start's validation problems, as the laboratory has them."""
    return [prompt[0]["content"] for prompt in pandas.read_parquet(VALIDATION)["prompt"]]


# ---- do they agree ---------------------------------------------------------------------------------------------------


def agreement(laboratory: Path, pipeline: Path, draws: int) -> str:
    """The section of docs/results.md about the methods that both folders of records have; "" without any."""
    ours, theirs = read(laboratory, "validation"), read(pipeline, "validation")
    common = [name for name in ours if name in theirs]
    if not common:
        return ""
    one = theirs[common[0]]
    lines = [
        "## The pipeline and the laboratory",
        "",
        "The same training, 16 prompts x 8 responses a step and updates of 8 prompts, through Ray, FSDP2 and vLLM, and "
        f"in the laboratory: seeds {', '.join(map(str, one.seeds))}, which draw different prompts and responses in the "
        f"two, {one.steps[-1]} steps, {one.correct.shape[-1]} validation problems x {SAMPLES} responses. "
        f"{where_and_when([theirs[name] for name in common])}.",
        "",
        "```",
        'bash launch/grid.sh METHODS="none paec" SEEDS="1 2 3" trainer.total_training_steps=150 \\',
        "  trainer.test_freq=50 trainer.save_freq=50 actor_rollout_ref.rollout.val_kwargs.n=32",
        "python -m benchmarks.lab.pipeline outputs/tiny_cpu-*-seed*",
        "paec lab sweep benchmarks/lab/agreement.yaml",
        "```",
        "",
        f"At step {one.steps[-1]}; pipeline minus laboratory with 95 % intervals over seeds and problems:",
        "",
        "| | | laboratory | pipeline | difference |",
        "|---|---|---|---|---|",
        *(line for name in common for line in _last(name, ours[name], theirs[name], draws)),
        "",
        *_gains({"laboratory": ours, "pipeline": theirs}, draws),
        "Training, means of the steps between two validations, the smallest and largest of the seeds:",
        "",
        f"| | | | {' | '.join(f'to step {step}' for step in one.steps[1:])} |",
        f"|---|---|---|{'---|' * (len(one.steps) - 1)}",
        *(line for name in common for line in _training(name, ours[name], theirs[name])),
    ]
    return "\n".join(lines)


def _last(name: str, ours: Runs, theirs: Runs, draws: int) -> list[str]:
    lines = []
    for quantity, digits in COMPARED:
        sides = [_by_problem(quantity, one) for one in (theirs, ours)]
        found = two_level_difference([(sides[0], sides[1])], same_seeds=False, resamples=draws)
        cells = [f"{side.mean():.{digits}f} ({_each(side.mean(-1), digits)})" for side in sides[::-1]]
        lines.append(f"| `{name}` | {quantity} | {cells[0]} | {cells[1]} | {interval(found, digits)} |")
    return lines


def _gains(runs: dict[str, dict[str, Runs]], draws: int) -> list[str]:
    """The table of PAEC's differences to GRPO in each of the two; nothing unless both have both."""
    if any(not {BASELINE, PAEC} <= found.keys() for found in runs.values()):
        return []
    lines = [
        "PAEC minus GRPO, in each:",
        "",
        f"| | {' | '.join(words for _, words, _ in GAINS)} |",
        f"|---|{'---|' * len(GAINS)}",
    ]
    for where, found in runs.items():
        gained = differences(found[PAEC], found[BASELINE], draws)
        lines.append(f"| {where} | {' | '.join(interval(gained[key], digits) for key, _, digits in GAINS)} |")
    return [*lines, ""]


def _by_problem(quantity: str, one: Runs) -> np.ndarray:
    """[S, P] at the last validation."""
    correct, distinct = one.correct[:, -1], one.distinct[:, -1]
    values = {"accuracy": correct / SAMPLES, "pass@32": correct > 0, "expressions": distinct}[quantity]
    return values.astype(float)


def _each(values: np.ndarray, digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _training(name: str, ours: Runs, theirs: Runs) -> list[str]:
    lines = []
    for key, words in TRAINING:
        for where, one in (("laboratory", ours), ("pipeline", theirs)):
            values = np.array([seed[key] for seed in one.training])
            cells = [f"{low:.3f} to {high:.3f}" for low, high in zip(values.min(0), values.max(0), strict=True)]
            lines.append(f"| `{name}` | {words} | {where} | {' | '.join(cells)} |")
    return lines


# ---- methods ---------------------------------------------------------------------------------------------------------


def methods(pipeline: Path, draws: int, figures: Path | None = None) -> str:
    """The section of docs/results.md about the methods trained with the pipeline; "" with GRPO and PAEC alone.

    The figure goes to the folder `figures`, if one is given.
    """
    on_record = read(pipeline, "validation")
    runs = comparable(on_record)
    if not runs.keys() - {BASELINE, PAEC}:
        return ""
    grpo = runs[BASELINE]
    own = [name for name in runs if name not in (BASELINE, PAEC)]
    settings = " ".join(f"{name.partition('.')[0]}{_overridden(name)}" for name in own)
    seeds = " ".join(map(str, grpo.seeds))
    if figures is not None:
        draw(runs, {name: differences(runs[name], grpo, draws) for name in runs if name != BASELINE}, figures / FIGURE)
    lines = [
        "## Methods through the pipeline",
        "",
        f"Ray, FSDP2 and vLLM, 16 prompts x 8 responses a step, {len(grpo.seeds)} seeds (mean, and each seed), "
        f"{grpo.steps[-1]} steps, {grpo.correct.shape[-1]} validation problems x {SAMPLES} responses; PAEC as shipped, "
        "the others at the value that the search chose. Token entropy: of the training's responses, in the mean over "
        f"the steps since the validation before. {where_and_when(runs.values())}.",
        "",
        "```",
        f'bash launch/grid.sh METHODS="{settings}" \\',
        f'  SEEDS="{seeds}" trainer.total_training_steps={grpo.steps[-1]} trainer.test_freq=50 trainer.save_freq=50 \\',
        f"  actor_rollout_ref.rollout.val_kwargs.n={SAMPLES}",
        "python -m benchmarks.lab.pipeline outputs/tiny_cpu-*-seed*",
        "```",
        "",
        *other_tasks.left_out({name: one for name, one in on_record.items() if name not in runs}),
        f"![{shows(runs)}]({FIGURE})",
        "",
        *other_tasks.tables(runs, draws, hypervolumes=True),
    ]
    return "\n".join(lines)


def _overridden(name: str) -> str:
    """`.mu=0.5` of a record's name as a setting of grid.sh, `:method.mu=0.5`."""
    _, _, field = name.partition(".")
    return f":method.{field}" if field else ""


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Records finished runs of the pipeline for docs/results.md.")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--records", type=Path, default=RECORDS)
    options = parser.parse_args(arguments)
    for folder in options.runs:
        try:
            record = record_of(folder)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        write(options.records, record["name"], record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
