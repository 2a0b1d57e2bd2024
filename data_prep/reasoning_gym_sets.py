"""Rows of reasoning_gym tasks, one or a mixture: any task whose scorer is safe on the text of a model.

Training and test rows never share a question. Their seeds are far apart, because the library seeds item i with
seed + i; and a checksum of the question decides which of the two it may appear in, because small tasks produce the same
question from different seeds. So any two files are disjoint across splits, for any sizes and seeds.
"""

from __future__ import annotations

import difflib
import itertools
import json
import random
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from data_prep.countdown import SEED_STRIDE
from data_prep.prepare import write
from data_prep.progress import with_progress
from data_prep.reading import InputError
from data_prep.templates import SEMICOLON, TEMPLATES, render
from recipe.grading import countdown, sources
from recipe.grading.extract import extract
from recipe.grading.reasoning_gym import PREFIX, score, scorer

SPLITS = ("train", "test")

TEST_SHARE = 4
"""One question in this many belongs to the test split."""

_PATIENCE = 1000
"""A task is exhausted when this many items in a row bring no new question of the split."""

_SIZE = 20_000
"""The size given to the library. word_ladder accepts no more and ends there; acre makes four times as many items in
advance (a million would take minutes and gigabytes) and ends there; other tasks make item i on demand."""

_CONFIG = {"countdown": {"operators": ("+", "-", "*")}}  # what the filter before its scorer accepts

_RESPONSES = {"boxed": "\\boxed{{answer}}", "answer_line": "Answer: {answer}", "semicolon": ";{answer}"}


def prepare(
    tasks: Mapping[str, float],
    size: int,
    seed: int,
    split: str,
    path: Path,
    *,
    template: str,
) -> dict[str, Any]:
    """Generate `size` rows and write them with manifest and report, as `data_prep.prepare.prepare` does.

    Args:
        tasks: weight by task; the rows are divided in proportion to the weights.
        seed: of the items; equal arguments give equal files, some tasks only under an equal PYTHONHASHSEED.
        split: "train" or "test".
        path: the .parquet file to write or replace.
        template: a name of `data_prep.templates.TEMPLATES`.

    Returns:
        The manifest.

    Raises:
        InputError: an unknown task, one without a safe scorer, or one that has too few questions.
    """
    for task in tasks:
        if task not in DATASETS:
            close = difflib.get_close_matches(task, DATASETS, n=1)
            hint = f"did you mean {close[0]}?" if close else "see reasoning_gym.factory.DATASETS for the names"
            raise InputError(f"{task}: is not a reasoning_gym task; {hint}")
        if not sources.supports(PREFIX + task):
            raise InputError(f"{sources.why_not(PREFIX + task)}; leave the task out")
    sizes = shares(tasks, size)
    rows = [
        row | {"extra_info": row["extra_info"] | {"index": index}}
        for index, row in enumerate(
            row for task, count in sizes.items() for row in task_rows(task, count, seed, split, template)
        )
    ]
    manifest = {
        "set": "reasoning_gym",
        "split": split,
        "source": {"reasoning_gym": reasoning_gym.__version__},
        "counts": {"tasks": sizes},
        "template": {"name": template, "text": TEMPLATES[template]},
        "countdown_template": SEMICOLON if "countdown" in tasks else None,
        "options": {"tasks": dict(tasks), "size": size, "seed": seed},
    }
    return write(path, rows, manifest, {"tasks": sizes})


def shares(tasks: Mapping[str, float], size: int) -> dict[str, int]:
    """Divide `size` rows in proportion to the weights, by largest remainder (the earlier task first on a tie)."""
    total = sum(tasks.values())
    exact = {task: size * weight / total for task, weight in tasks.items()}
    parts = {task: int(share) for task, share in exact.items()}
    by_remainder = sorted(exact, key=lambda task: parts[task] - exact[task])
    for task in by_remainder[: size - sum(parts.values())]:
        parts[task] += 1
    return parts


def belongs_to(question: str) -> str:
    """The split in which this question may appear."""
    return "train" if zlib.crc32(question.encode()) % TEST_SHARE else "test"


def task_rows(task: str, count: int, seed: int, split: str, template: str) -> list[dict[str, Any]]:
    """The first `count` distinct questions of the split; the ground truth is the library's entry, as JSON.

    Raises:
        InputError: the task has too few of them, or its right answers would not be scored as right.
    """
    first = SEED_STRIDE * (len(SPLITS) * seed + SPLITS.index(split))
    random.seed(first)  # list_functions draws from the module's generator as well as from its own
    dataset = reasoning_gym.create_dataset(task, seed=first, size=_SIZE, **_CONFIG.get(task, {}))
    if task == "countdown":
        template, text = "semicolon", SEMICOLON
    else:
        text = TEMPLATES[template]
    found: dict[str, dict[str, Any]] = {}
    last = 0
    with with_progress(total=count, label=task) as bar:
        for item in itertools.count():
            if len(found) == count:
                break
            if item - last > _PATIENCE:
                raise _too_few(task, len(found), count, f"no new one in the last {_PATIENCE} items")
            if item == SEED_STRIDE:
                raise _too_few(task, len(found), count, "the seeds of this split are used up")
            try:
                entry = dataset[item]
            except IndexError as error:
                raise _too_few(task, len(found), count, f"the task has no more items ({error})") from error
            question = entry["question"].strip()
            if question in found or belongs_to(question) != split:
                continue
            last = item
            found[question] = {
                "data_source": f"{PREFIX}{task}",
                "prompt": [{"role": "user", "content": render(text, question)}],
                "ability": "reasoning",
                "reward_model": {"style": "rule", "ground_truth": _ground_truth(task, template, entry)},
                "extra_info": {
                    "split": split,
                    "id": f"{PREFIX}{task}/{first + item}",
                    "template": template,
                    "problem": question,
                },
            }
            bar.update()
    return list(found.values())


def _too_few(task: str, found: int, count: int, reason: str) -> InputError:
    return InputError(
        f"{task}: only {found} of {count} distinct questions found: {reason}; request fewer rows of this task"
    )


def _ground_truth(task: str, template: str, entry: Mapping[str, Any]) -> str:
    try:
        text = json.dumps({"task": task, **{key: entry[key] for key in ("question", "answer", "metadata")}})
    except (TypeError, ValueError) as error:
        raise InputError(f"{task}: its entries cannot be written as JSON ({error}); leave it out") from error
    if problem := sources.check_ground_truth(PREFIX + task, text):
        raise InputError(f"{task}: its entries cannot be scored ({problem}); leave it out")
    if entry["answer"] is None:
        return text
    # A template has its own idea of where an answer ends, and braces in an answer may upset it.
    response = _RESPONSES.get(template, _RESPONSES["boxed"]).replace("{answer}", entry["answer"])
    if task == "countdown":
        right, _ = countdown.score(response, text)
    else:
        right = score(scorer(task), text, extract(response) or "")["correct"]
    if not right:
        raise InputError(f"{task}: its own answer {entry['answer'][:60]!r} would be scored as wrong; leave it out")
    return text
