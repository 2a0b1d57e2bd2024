"""What the records say, in a table and a few sentences at the top of docs/results.md; every number comes from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks.lab import endings, knob_search, other_tasks, pass_at_k
from benchmarks.lab.comparison import DRAWS, differences, in_bold, is_significant
from benchmarks.lab.records import (
    BASELINE,
    PAEC,
    PROBLEMS,
    REFERENCE,
    Runs,
    comparable,
    decimals,
    interval,
    levels,
    means,
    over_training,
    read,
)
from recipe.paec.scoring.estimators import Difference


@dataclass(frozen=True)
class Row:
    """Runs of GRPO and PAEC that the table has a row for."""

    folder: str
    """Of the laboratory's records; PIPELINE stands for the pipeline's."""
    words: str
    split: str = "validation"
    hypervolume: bool = True
    """Whether its reference point was chosen for this task."""
    again: bool = False
    """Whether a row above has the same seeds, so that this one adds no evidence about the trainings."""


PIPELINE = "pipeline"
ROWS = (
    Row("defaults", "test problems", "held_out"),
    Row("defaults", "validation problems", again=True),
    Row("defaults_repeated", "repeated on another processor", "held_out", again=True),
    Row("agreement", "half the batch"),
    Row(PIPELINE, "the pipeline"),
    Row("long", "long runs", "held_out", again=True),
    Row("llama", "a Llama", "held_out"),
    Row("countdown_four", "four numbers", hypervolume=False),
    Row("countdown_four_kept", "four numbers, another warm start", hypervolume=False),
    Row("word_problems", "word problems", hypervolume=False),
)
COLUMNS = (
    ("accuracy", "accuracy", 3),
    ("last pass@32", "pass@32", 3),
    ("last expressions", "expressions", 2),
    ("equal pass@32", "pass@32 at equal accuracy", 3),
    ("equal expressions", "expressions at equal accuracy", 2),
    ("pass@32", "hypervolume of accuracy and pass@32", 4),
)
"""Differences of the table, their words and decimals."""
AT_THE_END, WHOLE_CURVE = COLUMNS[:3], COLUMNS[3:]
PARTS = (
    ("lambda_low=0", "without the floor (`lambda_low=0`)"),
    ("mask=none", "with the floor under all tokens alike (`mask=none`)"),
    ("mask=none,lambda_low=15", "with that floor at 15 times the weight"),
    ("average=mass", "with the mean over the mask's own mass in place of all tokens (`average=mass`)"),
)
"""Ablations that take away what PAEC does, as the sentence about them calls them."""
NEVER = 0.005
"""The penalty acts in a smaller share of the steps: never."""


def section(folder: Path, of_pipeline: Path | None = None, draws: int = DRAWS) -> str:
    """The section of docs/results.md; "" without GRPO and PAEC as they are shipped, with the same seeds."""
    pairs = {row: pair for row in ROWS if (pair := _pair(row, folder, of_pipeline))}
    if ROWS[0] not in pairs:
        return ""
    gained = {row: differences(paec, grpo, draws) for row, (grpo, paec) in pairs.items()}
    lines = [
        "## In short",
        "",
        "PAEC as it is shipped minus GRPO (`none` in the tables below), at the last step and over the whole curve, "
        "with 95 % intervals, bold where p is below 0.05. Nothing here is corrected for the number of cells, and with "
        "three seeds such intervals can be too narrow (Protocol, Comparison). *Expressions* are the different correct "
        "ones of 32, and order makes them different; the *hypervolume* is the outcome that decides (Protocol, "
        "Outcome). Countdown with three numbers unless a row says otherwise. Of the rows,",
        "",
        "* *validation problems* are the trainings of the first row, measured on other problems;",
        "* *repeated on another processor* are the seeds of the first row, trained again;",
        "* *the pipeline* is Ray, FSDP2 and vLLM with half the batch; its token entropies are means over 50 steps of "
        "training, not of a validation;",
        "* *long runs* have the seeds of the first row too.",
        "",
        "| | problems | steps | seeds | GRPO's token entropy | PAEC's | "
        f"{' | '.join(words for _, words, _ in COLUMNS)} |",
        f"|---|---|---|---|---|---|{'---|' * len(COLUMNS)}",
        *(_row(row, *pairs[row], gained[row]) for row in pairs),
        "",
        _entropy({row: pair for row, pair in pairs.items() if not row.again}),
        f"* **At the last step**, PAEC's {_where(gained, AT_THE_END)} (uncorrected).",
        f"* **Against stopping GRPO earlier**, PAEC's {_where(gained, WHOLE_CURVE)} (uncorrected).",
        *endings.in_short(folder, draws),
    ]
    lines += _more_tries(folder)
    four = other_tasks.complete(folder / "countdown_four")
    lines += [beside(one, four[PAEC], draws) for name, one in four.items() if name not in (BASELINE, PAEC)]
    shipped = [row for row in pairs if row.folder == shipped_of(folder).name]
    grpo, paec = pairs[(shipped or ROWS)[0]]
    ablations = {name: one for name, one in read(folder / "ablations").items() if one.seeds == grpo.seeds}
    return "\n".join([*lines, *_parts(ablations, grpo, paec), *_all_methods(folder)])


def shipped_of(folder: Path) -> Path:
    """The runs of the shipped defaults that the ablations are compared with: the repeated ones, where they are."""
    repeated = folder / "defaults_repeated"
    return repeated if repeated.is_dir() else folder / "defaults"


def _pair(row: Row, folder: Path, of_pipeline: Path | None) -> tuple[Runs, Runs] | None:
    """GRPO and PAEC, once both have the same seeds and validations."""
    where = of_pipeline if row.folder == PIPELINE else folder / row.folder
    runs = {} if where is None else comparable(read(where, row.split))
    return (runs[BASELINE], runs[PAEC]) if PAEC in runs else None


def _counts(row: Row, key: str) -> bool:
    """Whether a difference means something there: the hypervolume where its reference point does."""
    return row.hypervolume or key not in REFERENCE


def _row(row: Row, grpo: Runs, paec: Runs, gained: Mapping[str, Difference]) -> str:
    cells = [row.words, PROBLEMS[row.split], f"{grpo.steps[-1]}", f"{len(grpo.seeds)}"]
    cells += [f"{_mean(grpo.entropy, 0)} to {_mean(grpo.entropy)}", _mean(paec.entropy)]
    for key, _, digits in COLUMNS:
        if key not in gained or not _counts(row, key):
            cells.append("-")
        else:
            cells.append(in_bold(gained[key], digits, gained[key].p))
    return f"| {' | '.join(cells)} |"


def _entropy(pairs: Mapping[Row, tuple[Runs, Runs]]) -> str:
    """Whose entropy falls, and whose ends above whose; in how many trainings."""
    fell = sum(int((grpo.entropy[:, -1] < grpo.entropy[:, 0]).sum()) for grpo, _ in pairs.values())
    kept = sum(int((paec.entropy[:, -1] > grpo.entropy[:, -1]).sum()) for grpo, paec in pairs.values())
    seeds = sum(len(grpo.seeds) for grpo, _ in pairs.values())
    return (
        f"* **Token entropy**: GRPO's falls in {fell} of {seeds} trainings of different seeds or tasks; PAEC's ends "
        f"above that of the same seed in {kept} of {seeds}."
    )


def _where(gained: Mapping[Row, Mapping[str, Difference]], columns: tuple[tuple[str, str, int], ...]) -> str:
    """In which rows each difference is significant, above and below 0."""
    told = []
    for key, words, _ in columns:
        of = {row: found[key] for row, found in gained.items() if key in found and _counts(row, key)}
        parts = []
        for word, sign in (("higher", 1), ("lower", -1)):
            if rows := [row.words for row, d in of.items() if is_significant(d.p) and d.value * sign > 0]:
                parts.append(f"{word} in {len(rows)} of {len(of)} rows ({', '.join(rows)})")
        told.append(f"{words} is {' and '.join(parts) or f'not significantly different in any of {len(of)} rows'}")
    return "; ".join(told)


def beside(other: Runs, paec: Runs, draws: int) -> str:
    """A sentence about another method of four numbers: how it ends, and PAEC minus it."""
    gained = differences(paec, other, draws)
    *last, entropy = (f"{name} {mean}" for name, mean in zip(levels(other), means(other), strict=True))
    ends = [entropy, *last]
    less = [
        f"{interval(gained[key], decimals(words))} {words}"
        for key, words, _ in COLUMNS
        if key in gained and key not in REFERENCE
    ]
    return (
        f"* **Four numbers, `{other.name}`** ends at {', '.join(ends)}. PAEC minus `{other.name}`: {', '.join(less)}."
    )


def _more_tries(folder: Path) -> list[str]:
    """From which k on the policy before training solves more within k tries than after GRPO, and after PAEC."""
    told = []
    for setting, runs in pass_at_k.complete(folder).items():
        if PAEC in runs:
            grpo, paec = (pass_at_k.in_words(pass_at_k.crossing(runs, name)) for name in (BASELINE, PAEC))
            told.append(f"{grpo} and {paec} ({pass_at_k.full_title(setting, runs)})")
    if not told:
        return []
    return [
        "* **More tries**: with enough tries the policy before training solves more problems than either trained one, "
        f"GRPO's and PAEC's, from k = {'; '.join(told)} on."
    ]


def _mean(values: np.ndarray, place: int = -1, digits: int = 3) -> str:
    """Of [S, K], the mean over seeds at a validation."""
    return f"{values[:, place].mean():.{digits}f}"


def _parts(ablations: Mapping[str, Runs], grpo: Runs, paec: Runs) -> list[str]:
    """What is left of PAEC's entropy without each of PARTS; nothing without such runs."""
    told = []
    for name, words in PARTS:
        if (one := ablations.get(name)) is not None:
            acts = over_training(one, "actor/paec/penalty_active")
            never = name != "lambda_low=0" and acts is not None and acts < NEVER
            told.append(f"{_mean(one.entropy)} {words}{', where the floor is never reached' if never else ''}")
    if not told:
        return []
    ends = f"{_mean(grpo.entropy)} with GRPO and {_mean(paec.entropy)} with PAEC"
    return [f"* **PAEC's parts**, three numbers. Token entropy at the last step is {ends}; {', '.join(told)}."]


def _all_methods(folder: Path) -> list[str]:
    """How far the comparison of all methods is, and what the search for their knobs does."""
    jobs = yaml.safe_load(knob_search.JOBS.read_text(encoding="utf-8"))["jobs"]
    methods, run = knob_search.settings_of([*jobs]), comparable(read(folder / "main"))
    found = [
        f"* **All methods against each other**: {len({*map(knob_search.method_of, run)} & {*methods})} of "
        f"{len(methods)} have "
        "their main runs, three numbers with every method at the value that the search took."
    ]
    if said := knob_search.what_it_takes(read(folder / "search", "validation"), [*jobs]):
        found.append(f"* **The search often takes the lowest entropy**: {said}")
    return found
