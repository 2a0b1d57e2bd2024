"""Recorded runs of the laboratory, and their outcome: the area under the frontier of accuracy and diversity."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.files import atomic_write
from recipe.paec.scoring.estimators import Difference, hypervolume

BASELINE, PAEC = "none", "paec"
SAMPLES = 32
"""Responses to each problem in a validation."""
REFERENCE = {"pass@32": (0.30, 0.60), "expressions": (0.30, 1.0)}
"""Reference points of the hypervolumes: accuracy, and the other axis."""
NO_WIDTH = 1e-9
"""Ranges of accuracy up to this are one accuracy: such differences are rounding."""
SOURCE = "reasoning_gym/countdown"
SPLITS = {"held_out": "held_out", "validation": "val"}
"""Test and validation problems -> what their metrics begin with."""
PROBLEMS = {"held_out": "test", "validation": "validation"}
"""The same in words."""


@dataclass(frozen=True)
class Runs:
    """A method's runs, by seed; K validations of P problems each."""

    name: str
    seeds: tuple[int, ...]
    steps: np.ndarray
    """[K]."""
    correct: np.ndarray
    """[S, K, P] correct responses of SAMPLES."""
    distinct: np.ndarray
    """[S, K, P] different correct expressions among them."""
    entropy: np.ndarray
    """[S, K] mean token entropy of the responses, nats."""
    dates: tuple[str, ...] = ()
    """The days of the records, in order."""
    cores: tuple[int, ...] = ()
    """Cores of the machines that made them."""
    majority: np.ndarray | None = None
    """[S, K, P] bool, whether the most frequent answer is right, where a problem has one answer."""
    training: tuple[Mapping[str, Any], ...] = ()
    """Each seed's training metrics, means over the steps between validations, as `paec lab sweep` records them."""

    def matches(self, other: Runs) -> bool:
        """Whether both have the same seeds and validations, so that they can be in one table."""
        return self.seeds == other.seeds and np.array_equal(self.steps, other.steps)


def comparable(runs: Mapping[str, Runs]) -> dict[str, Runs]:
    """The runs that match the baseline's, itself among them; none without it. The sweep of the others is under way."""
    baseline = runs.get(BASELINE)
    return {} if baseline is None else {name: one for name, one in runs.items() if one.matches(baseline)}


def by_name_and_seed(folder: Path) -> dict[str, dict[int, dict]]:
    """The content of a folder's records `<name>-seed<seed>.json`."""
    found: dict[str, dict[int, dict]] = defaultdict(dict)
    for file in sorted(folder.glob("*-seed*.json")):
        name, _, seed = file.stem.rpartition("-seed")
        found[name][int(seed)] = json.loads(file.read_text(encoding="utf-8"))
    return found


def read(folder: Path, split: str = "held_out") -> dict[str, Runs]:
    """The recorded runs by their name in the file of jobs, the baseline first; on the problems of `split`.

    Raises:
        ValueError: runs that cannot be put together: other steps or problems, validations that lack the problems of
            `split`, or another number of responses.
    """
    found, runs = by_name_and_seed(folder), {}
    for name in sorted(found, key=lambda name: (name != BASELINE, name)):
        records = [found[name][seed] for seed in sorted(found[name])]
        steps = {tuple(record["validation"]["step"]) for record in records}
        sizes = {len(of) for record in records for of in record["problems"].get(split, {}).get("correct", ())}
        if len(sizes) > 1:
            raise ValueError(f"{name}: its seeds were measured on different problems: {sorted(sizes)} of them")
        counts = [_counts(record, split, f"{folder.name}/{name}") for record in records]
        if len(steps) != 1:
            raise ValueError(f"{name}: its seeds were validated at different steps: {sorted(steps)}")
        runs[name] = Runs(
            name,
            tuple(sorted(found[name])),
            np.array(steps.pop()),
            np.array([of["correct"] for of in counts]),
            np.array([of["distinct"] for of in counts]),
            np.array([_entropy(record["validation"], SPLITS[split]) for record in records]),
            tuple(sorted({record["date"] for record in records})),
            tuple(sorted({record["cores"] for record in records})),
            np.array([of["majority"] for of in counts]) if all("majority" in of for of in counts) else None,
            tuple(record["training"] for record in records),
        )
    sizes = {name: one.correct.shape[-1] for name, one in runs.items()}
    if len({*sizes.values()}) > 1:
        raise ValueError(f"{folder.name}: its methods were measured on different problems: {sizes}")
    return runs


def _counts(record: Mapping[str, Any], split: str, name: str) -> Mapping[str, Any]:
    """A record's counts of a split, checked against its validations."""
    found, steps = record["problems"].get(split), record["validation"]["step"]
    if not found or {len(found["correct"]), len(found["distinct"])} != {len(steps)}:
        remedy = "run and record it again"
        if split == "held_out":
            remedy = (
                'add held_out=true to "all:" of the file of jobs, and sweep again with another --runs and --records'
            )
        raise ValueError(f"{name}: its validations do not all have {split} problems: {remedy}")
    keys = [key for key in record["validation"] if key.startswith(f"{SPLITS[split]}/") and "/avg@" in key]
    if keys and not any(key.endswith(f"/avg@{SAMPLES}") for key in keys):
        n = keys[0].rpartition("@")[2]
        raise ValueError(f"{name}: has {n} responses to a problem, not {SAMPLES}: run it with test_samples={SAMPLES}")
    return found


def _entropy(validation: Mapping[str, list[float]], split: str) -> list[float]:
    """The entropies of a record's validations; its problems are of one data source."""
    (key,) = (key for key in validation if key.startswith(f"{split}/") and key.endswith("/entropy"))
    return validation[key]


def over_training(runs: Runs, key: str) -> float | None:
    """A training metric's mean over the steps of all seeds where it exists; None where no step has it."""
    sums = weights = 0.0
    for one in runs.training:
        for first, last, value in zip([0, *one["step"]], one["step"], one.get(key, ()), strict=False):
            if value is not None:
                sums, weights = sums + (last - first) * value, weights + last - first
    return sums / weights if weights else None


def over_problems(values: np.ndarray, shares: np.ndarray | None) -> np.ndarray:
    """[..., P] -> [...] mean over problems; with shares [B, P], rows that sum to 1, a weighted one each: [B, ...]."""
    return values.mean(-1) if shares is None else np.tensordot(shares, values, (1, -1))


def accuracy(correct: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """[..., P] correct responses -> [...] mean share; `shares` as in `over_problems`."""
    return over_problems(correct, shares) / SAMPLES


def solved(correct: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """[..., P] correct responses -> [...] share of problems with at least one, pass@32; `shares` as above."""
    return over_problems(correct > 0, shares)


def quantities(one: Runs) -> dict[str, np.ndarray]:
    """Of every problem, [S, K, P] float64: accuracy, pass@32, and maj@32 or, without votes, distinct answers.

    maj@32 is 1 where the most frequent answer is right, else 0.
    """
    found = {"accuracy": one.correct / SAMPLES, "pass@32": (one.correct > 0).astype(float)}
    if one.majority is None:
        return {**found, "expressions": one.distinct.astype(float)}
    return {**found, "maj@32": one.majority.astype(float)}


def levels(one: Runs, validation: int = -1) -> dict[str, np.ndarray]:
    """[S] of every seed at a validation: the means over problems of `quantities`, and the token entropy in nats."""
    found = {name: of[:, validation].mean(-1) for name, of in quantities(one).items()}
    return {**found, "token entropy": one.entropy[:, validation]}


def decimals(name: str) -> int:
    """Of a quantity in a table."""
    return 2 if name.startswith("expressions") else 3


def means(one: Runs, validation: int = -1) -> list[str]:
    """`levels` as cells of a table: means over seeds."""
    return [f"{of.mean():.{decimals(name)}f}" for name, of in levels(one, validation).items()]


def means_and_seeds(one: Runs, validation: int = -1) -> list[str]:
    """The same with every seed beside the mean."""
    return [with_seeds(of, decimals(name)) for name, of in levels(one, validation).items()]


def with_seeds(of: np.ndarray, digits: int = 3) -> str:
    """`0.481 (0.475, 0.484, 0.483)`: the mean over seeds, and every seed."""
    return f"{of.mean():.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in of)})"


def outcomes(correct: np.ndarray, distinct: np.ndarray, shares: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The two hypervolumes of runs [..., K, P]; [...] each, or [B, ...] with `shares` as in `over_problems`."""
    found = points(correct, distinct, shares)
    return {name: hypervolume(x, y, REFERENCE[name]) for name, (x, y) in found.items()}


def points(
    correct: np.ndarray, distinct: np.ndarray, shares: np.ndarray | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Accuracy and the other quantity of every validation, by the names of REFERENCE; shapes as in `over_problems`."""
    right = accuracy(correct, shares)
    return {"pass@32": (right, solved(correct, shares)), "expressions": (right, over_problems(distinct, shares))}


def gap_at_equal_accuracy(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """How much higher the first curve lies than the second, in the mean over the accuracies that both reach; [...].

    A curve is its points (accuracy, y) [..., K], in the order of accuracy, joined by straight lines; points of equal
    accuracy keep their order: the curve arrives at the first one and goes on from the last one. Before its first point
    and after its last one it is level.
    """
    low = np.maximum(one[0].min(-1), other[0].min(-1))
    high = np.minimum(one[0].max(-1), other[0].max(-1))
    return _mean_height(*one, low, high) - _mean_height(*other, low, high)


def _mean_height(x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """[...] mean between `low` and `high` [...] of the curves through (x, y) [..., K]: exact, segment by segment."""
    order = np.argsort(x, -1, kind="stable")
    x, y = np.take_along_axis(x, order, -1), np.take_along_axis(y, order, -1)
    start, run = x[..., :-1], np.diff(x)

    def risen(at: np.ndarray) -> np.ndarray:
        """The share of each segment's rise that is behind `at`, 0 to 1; of a segment without a run, all or none."""
        passed = at[..., None] - start
        return np.divide(passed.clip(0, run), run, out=(passed >= 0).astype(float), where=run > 0)

    def integral(at: np.ndarray) -> np.ndarray:
        """Of `risen`, up to `at`."""
        passed = (at[..., None] - start).clip(0)
        inside = np.minimum(passed, run)
        return passed - inside + np.divide(inside**2, 2 * run, out=np.zeros_like(run), where=run > 0)

    width = (high - low)[..., None]
    wide = np.abs(width) > NO_WIDTH
    means = np.where(wide, (integral(high) - integral(low)) / np.where(wide, width, 1.0), risen(high))
    return y[..., 0] + (np.diff(y) * means).sum(-1)


def where_and_when(runs: Iterable[Runs]) -> str:
    """`2 cores, no GPU, 2026-11-29`: the machines and days of the records."""
    found = [*runs]
    return machines_and_days((n for one in found for n in one.cores), (day for one in found for day in one.dates))


def machines_and_days(cores: Iterable[int], days: Iterable[str]) -> str:
    """The same from the numbers of cores and the days of single records."""
    ordered = sorted({*days})
    until = f" to {ordered[-1]}" if len(ordered) > 1 else ""
    return f"{' or '.join(map(str, sorted({*cores})))} cores, no GPU, {ordered[0]}{until}"


def write(folder: Path, name: str, record: Mapping[str, Any]) -> Path:
    """Write a record, completely or not at all, and say where; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    with atomic_write(file) as partial:
        partial.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(file)
    return file


def interval(of: Difference, digits: int) -> str:
    """`+0.010 [-0.002, +0.022]`."""
    if of.low is None or of.high is None:
        return f"{of.value:+.{digits}f}"
    return f"{of.value:+.{digits}f} [{of.low:+.{digits}f}, {of.high:+.{digits}f}]"
