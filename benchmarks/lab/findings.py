"""What the records say, in a few sentences at the top of docs/results.md; every number comes from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab import other_tasks, why
from benchmarks.lab.comparison import DRAWS, differences
from benchmarks.lab.records import BASELINE, PAEC, Runs, interval, quantities, read
from recipe.paec.scoring.estimators import Difference

PARTS = (
    ("lambda_low=0", "without the floor (`lambda_low=0`)"),
    ("mask=none", "with the floor under all tokens instead of the selected ones (`mask=none`)"),
    ("average=mass", "with the mean over the mask's own mass (`average=mass`)"),
)
"""Ablations that take PAEC's effect away, as the sentence about them calls them."""

WORDS = {"distinct": "distinct correct answers"}
"""A quantity in words, where its name is not enough."""


def section(folder: Path, of_pipeline: Path | None = None, draws: int = DRAWS) -> str:
    """The section of docs/results.md; "" without the runs of the shipped defaults with the same seeds."""
    defaults = _pair(read(folder / "defaults"))
    if defaults is None:
        return ""
    grpo, paec = defaults
    lines = ["## In short", "", *_of(grpo, paec, differences(paec, grpo, draws), "On the quick start's task")]
    if others := _accuracies(folder, of_pipeline, draws):
        lines.append(others)
    ablations = {name: one for name, one in read(folder / "ablations").items() if one.seeds == grpo.seeds}
    if parts := _parts(ablations, grpo, paec):
        lines.append(parts)
    if inside := why.read(folder / "why"):
        lines.append(_mask(inside))
    for name, where in (("long", "Over a longer training"), ("llama", "On another model")):
        if pair := _pair(read(folder / name)):
            lines += _of(*pair, differences(pair[1], pair[0], draws), where)
    for name, where in (("countdown_four", "Where the search is longer"), ("word_problems", "On word problems")):
        runs = other_tasks.complete(folder / name)
        if pair := _pair(runs):
            lines += _of(*pair, differences(pair[1], pair[0], draws), where)
            lines += [beside(runs[name], runs[PAEC], draws) for name in runs if name not in (BASELINE, PAEC)]
    return "\n".join(lines)


def _pair(runs: dict[str, Runs]) -> tuple[Runs, Runs] | None:
    """GRPO and PAEC, once both have the same seeds and validations."""
    if BASELINE not in runs or PAEC not in runs:
        return None
    grpo, paec = runs[BASELINE], runs[PAEC]
    return (grpo, paec) if paec.matches(grpo) else None


def _accuracies(folder: Path, of_pipeline: Path | None, draws: int) -> str:
    """What PAEC costs in accuracy on the problems that the first finding is not about; "" without such records."""
    places = {
        "on the {} validation problems of the same runs": folder / "defaults",
        "there with half the batch": folder / "agreement",
        "through the pipeline": of_pipeline,
    }
    found = []
    for words, place in places.items():
        if place is not None and (pair := _pair(read(place, "validation"))):
            gained = differences(pair[1], pair[0], draws)["accuracy"]
            found.append(f"{interval(gained, 3)} {words.format(pair[0].correct.shape[-1])}")
    return f"* **The accuracy elsewhere**, PAEC's minus GRPO's at the last step: {', '.join(found)}." if found else ""


def _of(grpo: Runs, paec: Runs, gained: dict[str, Difference], where: str) -> list[str]:
    """Two sentences about a pair: what happens to GRPO's entropy, and what PAEC does about it."""
    seeds, steps = len(grpo.seeds), grpo.steps[-1]
    fell = int((grpo.entropy[:, -1] < grpo.entropy[:, 0]).sum())
    kept = int((paec.entropy[:, -1] > grpo.entropy[:, -1]).sum())
    ours, theirs = ({name: of.mean(-1) for name, of in quantities(one).items()} for one in (paec, grpo))
    names = [*reversed(theirs)]
    pairs = {"token entropy": (grpo.entropy, paec.entropy, 3)}
    pairs |= {WORDS.get(name, name): (theirs[name], ours[name], _digits(name)) for name in names}
    moved = ", ".join(
        f"{words} from {_mean(one, 0, digits)} to {_mean(one, -1, digits)}" for words, (one, _, digits) in pairs.items()
    )
    ends = ", ".join(f"{words} {_mean(other, -1, digits)}" for words, (_, other, digits) in pairs.items())
    equal = [
        f"{interval(gained[f'equal {name}'], _digits(name))} {WORDS.get(name, f'in {name}')}"
        for name in names
        if name != "accuracy"
    ]
    return [
        f"* **{where}, GRPO's entropy falls** in {fell} of {seeds} seeds; within {steps} steps {moved}.",
        f"* **PAEC's ends above it** in {kept} of {seeds} seeds: {ends}. At equal accuracy the difference to GRPO is "
        f"{' and '.join(equal)}; that of the accuracy at the last step is {interval(gained['accuracy'], 3)}.",
    ]


def beside(other: Runs, paec: Runs, draws: int) -> str:
    """A sentence about another method of a task: how it ends, and PAEC minus it."""
    gained = differences(paec, other, draws)
    ends = {"token entropy": (other.entropy, 3)}
    ends |= {WORDS.get(name, name): (of.mean(-1), _digits(name)) for name, of in reversed(quantities(other).items())}
    shown = ", ".join(f"{words} {_mean(of, -1, digits)}" for words, (of, digits) in ends.items())
    less = ", ".join(
        f"{interval(gained[name if name == 'accuracy' else f'last {name}'], _digits(name))} {WORDS.get(name, name)}"
        for name in reversed(quantities(other))
    )
    return f"* **`{other.name}` there** ends at {shown}. PAEC minus `{other.name}` at the last step: {less}."


def _digits(name: str) -> int:
    """Decimals of a quantity."""
    return 2 if name == "distinct" else 3


def _mean(values: np.ndarray, place: int, digits: int) -> str:
    """Of [S, K], the mean over seeds at a validation."""
    return f"{values[:, place].mean():.{digits}f}"


def _parts(ablations: dict[str, Runs], grpo: Runs, paec: Runs) -> str:
    """Which parts the effect comes from, if each of PARTS ends nearer to GRPO than to PAEC; "" otherwise."""
    found = [(words, ablations[name]) for name, words in PARTS if name in ablations]
    middle = (grpo.entropy[:, -1].mean() + paec.entropy[:, -1].mean()) / 2
    if len(found) < len(PARTS) or any(one.entropy[:, -1].mean() >= middle for _, one in found):
        return ""
    told = ", ".join(f"{words} {_mean(one.entropy, -1, 3)}" for words, one in found)
    ends = f"GRPO has {_mean(grpo.entropy, -1, 3)} and PAEC {_mean(paec.entropy, -1, 3)}"
    return (
        f"* **It takes the floor, the positions and the count.** Token entropy at the last step, where {ends}: {told}."
    )


def _mask(inside: dict[str, list[dict[str, Any]]]) -> str:
    """Which tokens the mask takes, and what its term weighs; from the records of `why`."""
    kinds = {kind: place for place, kind in enumerate(why.KINDS)}
    chosen, forced = [kinds[kind] for kind in why.KINDS[:3]], [kinds[kind] for kind in ("result", "punctuation", "end")]
    mass, share = (why.mean(inside, PAEC, quantity)[0] for quantity in ("mass", "share"))
    ratio = why.mean(inside, PAEC, "ratio")
    return (
        f"* **Where the mask is.** {mass[chosen].sum():.0%} of its mass is at the numbers and operators that a step "
        f"chooses, which are {share[chosen].sum():.0%} of the tokens, and {mass[forced].sum():.1%} at results, "
        f"punctuation and the end, which are {share[forced].sum():.0%}. The gradient of its term is {ratio[0]:.3f} of "
        f"the policy loss's in the first {why.WINDOW} steps and {ratio[-1]:.2f} in the last."
    )
