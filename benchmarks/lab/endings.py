"""What the policies of finished runs draw: solutions up to order, and at which tokens their entropy is.

    python -m benchmarks.lab.endings FOLDER RUN [RUN ...]

loads the last checkpoint of each run of the laboratory, draws the responses of its last validation again, and writes
benchmarks/results/lab/endings/FOLDER/<name>-seed<seed>.json; FOLDER is that of the runs' records (TABLES). Of GRPO's
runs the policy before training is recorded too, as `start`. About 20 seconds a run on one core; docs/results.md has the
tables.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from benchmarks.lab.comparison import DRAWS, added, corrected, in_bold, mean_gap
from benchmarks.lab.records import BASELINE, PAEC, PROBLEMS, by_name_and_seed, interval, machines_and_days, write
from data_prep.arithmetic import choose_avx2
from paec_loss import PAEC as PAECMethod
from paec_loss import position_mask
from recipe.grading import countdown
from recipe.lab import grpo
from recipe.lab.policy import Policy
from recipe.lab.runs import CONFIG_FILE, STATE_FILE
from recipe.lab.settings import Settings, settings_of
from recipe.lab.task import HIGH, Task, expressions_of, rows_of
from recipe.paec.common.repository import REPOSITORY
from recipe.paec.scoring.estimators import Difference

FOLDER = "endings"
RECORDS = REPOSITORY / "benchmarks" / "results" / "lab" / FOLDER
START = "start"
"""The policy before training, drawn with a seed's random numbers."""
SHIPPED = PAECMethod()
COUNTS = ("correct", "expressions", "solutions")
"""Of every problem: correct responses, different expressions among them, and those up to order and brackets."""
SUMS = ("tokens", "entropy", "high", "high_entropy", "ungraded_high_entropy", "mask_entropy", "high_mask_entropy")
"""Over all tokens: their number and entropy, the number and entropy of those above HIGH, the latter's part before the
last `;`, which no grader reads, and the entropy weighted by PAEC's mask, of all and of those above HIGH."""
FEW = 0.005
"""Of the entropy: a smaller part needs no sentence of its own."""


@dataclass(frozen=True)
class Table:
    """Runs with a table on the page."""

    folder: str
    words: str
    split: str


TABLES = (
    Table("countdown_four", "four numbers", "validation"),
    Table("countdown_four_kept", "four numbers, another warm start", "validation"),
    Table("defaults_repeated", "three numbers", "held_out"),
    Table("finalists", "three numbers", "held_out"),
    Table("long", "three numbers", "held_out"),
    Table("llama", "a Llama, three numbers", "held_out"),
)


# ---- recording -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def ending(policy: Policy, task: Task, settings: Settings, step: int, split: str) -> dict[str, Any]:
    """The counts of every problem and the sums over tokens of a policy's validation after `step` steps."""
    counts: dict[str, list[int]] = {name: [] for name in COUNTS}
    sums = dict.fromkeys(SUMS, 0.0)
    (semicolon,) = task.tokenizer.encode(";", add_special_tokens=False)
    samples = settings.test_samples
    drawing = (samples, settings.max_response_length, settings.test_temperature, settings.seed)
    for problems, drawn in task.drawn_by(policy, *drawing, step, split):
        tokens, inside = drawn.tokens.flatten(0, 1), drawn.inside.flatten(0, 1)
        verdicts = task.verdicts([p for p in problems for _ in range(samples)], task.texts(rows_of(tokens, inside)))
        for row in range(len(problems)):
            of = verdicts[row * samples : (row + 1) * samples]
            answers = expressions_of(of)
            counts["correct"].append(sum(v.correct for v in of))
            counts["expressions"].append(len(answers))
            counts["solutions"].append(len({countdown.solution(answer) for answer in answers}))
        last = torch.where(tokens == semicolon, torch.arange(tokens.shape[1]), -1).amax(1, keepdim=True)
        ungraded = (torch.arange(tokens.shape[1]) <= last)[inside]
        logits = drawn.logits.flatten(0, 1)[inside]
        statistics = grpo.statistics_of(logits, tokens, inside, settings, SHIPPED.top_p)
        mask, entropy = (of[inside].double() for of in (position_mask(statistics, inside, SHIPPED), statistics.entropy))
        high = entropy > HIGH
        found = (
            *(len(entropy), entropy.sum(), high.sum(), entropy[high].sum(), entropy[high & ungraded].sum()),
            *((mask * entropy).sum(), (mask * entropy)[high].sum()),
        )
        for name, value in zip(SUMS, found, strict=True):
            sums[name] += float(value)
    return {**counts, **{name: round(value, 3) for name, value in sums.items()}}


def endings_of(folder: Path, split: str) -> dict[str, dict[str, Any]]:
    """The records of a finished run by their names: its own, and of GRPO's that of the policy before training."""
    settings = settings_of(list(OmegaConf.load(folder / CONFIG_FILE).run.overrides))
    name, _, seed = folder.name.rpartition("-seed")
    policy = Policy(settings.task / "model")
    task = Task(settings.task, policy.positions, settings.max_response_length)
    about = {"split": split, "seed": settings.seed, "date": date.today().isoformat(), "cores": os.cpu_count()}
    found = {}
    if name == BASELINE:
        found[f"{START}-seed{seed}"] = {**about, "step": 0, **ending(policy, task, settings, 0, split)}
    state = torch.load(folder / STATE_FILE, weights_only=True)
    with torch.no_grad():
        for key, parameter in policy.parameters.items():
            parameter.copy_(state["parameters"][key])
    step = state["step"]
    return {**found, f"{name}-seed{seed}": {**about, "step": step, **ending(policy, task, settings, step, split)}}


# ---- the page --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """A method's records, by seed."""

    seeds: tuple[int, ...]
    step: int
    counts: Mapping[str, np.ndarray]
    """COUNTS, each [S, P]."""
    sums: Mapping[str, np.ndarray]
    """SUMS, each [S]."""
    machines: tuple[tuple[int, str], ...]
    """Cores and date of every record."""

    @property
    def several(self) -> np.ndarray:
        """[S, P] whether a problem has two solutions or more."""
        return (self.counts["solutions"] > 1).astype(float)

    @property
    def entropy(self) -> np.ndarray:
        """[S] mean over tokens, nats."""
        return self.sums["entropy"] / self.sums["tokens"]

    @property
    def entropy_below(self) -> np.ndarray:
        """[S] the part of that mean which is at tokens of at most HIGH nats."""
        return (self.sums["entropy"] - self.sums["high_entropy"]) / self.sums["tokens"]

    def share(self, part: str, whole: str) -> float:
        """Of two of SUMS, the ratio of the sums over seeds."""
        return float(self.sums[part].sum() / self.sums[whole].sum()) if self.sums[whole].sum() else 0.0


def read(folder: Path) -> dict[str, Ending]:
    """The records of a folder by method: START, the baseline, then by name; those with the baseline's seeds."""
    found, endings = by_name_and_seed(folder), {}
    for name in sorted(found, key=lambda name: (name != START, name != BASELINE, name)):
        records = [found[name][seed] for seed in sorted(found[name])]
        if BASELINE in found and found[name].keys() == found[BASELINE].keys():
            endings[name] = Ending(
                tuple(sorted(found[name])),
                records[0]["step"],
                {key: np.array([record[key] for record in records]) for key in COUNTS},
                {key: np.array([record[key] for record in records]) for key in SUMS},
                tuple((record["cores"], record["date"]) for record in records),
            )
    return endings


QUANTITIES = {
    "pass@32": (lambda of: (of.counts["correct"] > 0).astype(float), 3),
    "expressions": (lambda of: of.counts["expressions"].astype(float), 2),
    "solutions": (lambda of: of.counts["solutions"].astype(float), 2),
    "several solutions": (lambda of: of.several, 3),
}
"""Of every problem, [S, P], and decimals."""


def differences(one: Ending, other: Ending, draws: int = DRAWS) -> dict[str, Difference]:
    """`one` minus `other` by QUANTITIES: the bootstrap over seeds and problems, both shared."""
    return {name: mean_gap(of(one) - of(other), draws) for name, (of, _) in QUANTITIES.items()}


def complete(folder: Path) -> dict[Table, dict[str, Ending]]:
    """The records of TABLES below `folder` that have GRPO and PAEC, or a setting of PAEC."""
    found = {table: read(folder / FOLDER / table.folder) for table in TABLES}
    return {table: of for table, of in found.items() if BASELINE in of and paec_of(of)}


def paec_of(endings: Mapping[str, Ending]) -> str | None:
    """The name of PAEC's runs."""
    return next((name for name in endings if name == PAEC or name.startswith(f"{PAEC}.")), None)


def section(folder: Path, draws: int = DRAWS) -> str:
    """The section of docs/results.md; "" without records."""
    found = complete(folder)
    if not found:
        return ""
    machines = [machine for of in found.values() for one in of.values() for machine in one.machines]
    lines = [
        "## What the policies draw at the end",
        "",
        "The responses of the last validation once more, from the last checkpoint; `python -m benchmarks.lab.endings`; "
        f"{machines_and_days(*zip(*machines, strict=True))}. Two questions that the other tables leave open.",
        "",
        "**Are different expressions different solutions?** `7+5-2` and `5+7-2` are two of the correct "
        "expressions that this page counts everywhere else. A *solution* here is what is left when order and brackets "
        "make no difference.",
        "",
        "**Where is the entropy?** The grader reads the expression behind the last `;`, not the steps before it. A "
        f"token above {HIGH:g} nats is not a choice between a few numbers: it is as undecided as between more than "
        "seven equally likely ones.",
        "",
        *where_the_entropy_is(found),
    ]
    for table, endings in found.items():
        lines += ["", *_tables(table, endings, draws)]
    return "\n".join(lines)


def where_the_entropy_is(found: Mapping[Table, Mapping[str, Ending]]) -> list[str]:
    """How much of PAEC's entropy is at tokens above HIGH, a bullet for each table."""
    told = []
    for table, endings in found.items():
        name = paec_of(endings)
        told.append(f"* {_capital(table.words)}, {endings[name].step:,} steps: {_above(name, endings)}")
    return told


def _above(name: str, endings: Mapping[str, Ending]) -> str:
    paec, grpo = endings[name], endings[BASELINE]
    share = paec.share("high_entropy", "entropy")
    if share < FEW:
        return f"hardly any, {share:.1%} of `{name}`'s token entropy."
    return (
        f"{share:.0%} of `{name}`'s token entropy is at tokens above {HIGH:g} nats, which are "
        f"{paec.share('high', 'tokens'):.1%} of the tokens ({grpo.share('high_entropy', 'entropy'):.0%} with GRPO); "
        f"{paec.share('ungraded_high_entropy', 'high_entropy'):.0%} of that is where no grader reads. They have "
        f"{paec.share('high_mask_entropy', 'mask_entropy'):.0%} of the entropy that counts towards the floor. With "
        f"them counted as 0 the token entropy is {paec.entropy_below.mean():.3f}, GRPO's "
        f"{grpo.entropy_below.mean():.3f}."
    )


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _tables(table: Table, endings: Mapping[str, Ending], draws: int) -> list[str]:
    grpo = endings[BASELINE]
    lines = [
        f"### {_capital(table.words)}, {grpo.step:,} steps, "
        f"{grpo.counts['correct'].shape[1]} {PROBLEMS[table.split]} problems, {len(grpo.seeds)} seeds",
        "",
        "| | pass@32 | expressions | solutions | problems with two solutions or more | token entropy | "
        f"tokens above {HIGH:g} nats | their part of the entropy | token entropy, those counted as 0 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in endings.items():
        cells = [f"{of(one).mean():.{digits}f}" for of, digits in QUANTITIES.values()]
        cells += [f"{one.entropy.mean():.3f}", f"{one.share('high', 'tokens'):.1%}"]
        cells += [f"{one.share('high_entropy', 'entropy'):.0%}", f"{one.entropy_below.mean():.3f}"]
        label = "before training" if name == START else f"`{name}`"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    methods = {name: one for name, one in endings.items() if name != START}
    lines += ["", *_minus(methods, BASELINE, "GRPO", draws)]
    if PAEC in methods and len(methods) > 2:
        others = {name: one for name, one in methods.items() if name != BASELINE}
        lines += ["", *_minus(others, PAEC, "PAEC", draws)]
    for alone, both in added(methods):
        pair = {alone: methods[alone], both: methods[both]}
        lines += ["", *_minus(pair, alone, f"`{alone}` alone", draws)]
    return lines


def _minus(endings: Mapping[str, Ending], from_which: str, called: str, draws: int) -> list[str]:
    """The table of every method minus one of them."""
    gained = {name: differences(one, endings[from_which], draws) for name, one in endings.items() if name != from_which}
    said = {key: corrected({name: of[key].p for name, of in gained.items()}) for key in QUANTITIES}
    corrects = " after Holm's correction for the number of methods" if len(gained) > 1 else ""
    lines = [
        f"Minus {called}; 95 % intervals, bold what differs{corrects}:",
        "",
        "| | pass@32 | expressions | solutions | problems with two solutions or more |",
        "|---|---|---|---|---|",
    ]
    for name, of in gained.items():
        cells = [in_bold(of[key], digits, said[key][name]) for key, (_, digits) in QUANTITIES.items()]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def in_short(folder: Path, draws: int = DRAWS) -> list[str]:
    """PAEC minus GRPO in expressions and in solutions, a bullet for the summary; [] without records."""
    found = complete(folder)
    told = []
    for table, endings in found.items():
        name = paec_of(endings)
        gained = differences(endings[name], endings[BASELINE], draws)
        told.append(
            f"{interval(gained['expressions'], 2)} expressions are {interval(gained['solutions'], 2)} solutions "
            f"({table.words}, {endings[name].step:,} steps)"
        )
    if not told:
        return []
    return [
        "* **Most of the expressions are one solution in another order.** PAEC minus GRPO, order and brackets "
        f"left out: {'; '.join(told)}.",
        "* **Part of the entropy that PAEC keeps in longer trainings is not exploration**, but at tokens above "
        f"{HIGH:g} nats:",
        *(f"  {line}" for line in where_the_entropy_is(found)),
    ]


# ---- command line ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    choose_avx2()
    parser = argparse.ArgumentParser(description="Records what the policies of finished runs draw.")
    parser.add_argument("folder", choices=[table.folder for table in TABLES], help="the folder of the runs' records")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs, <name>-seed<seed>")
    parser.add_argument("--output", type=Path, default=RECORDS)
    options = parser.parse_args(arguments)
    split = next(table.split for table in TABLES if table.folder == options.folder)
    missing = [run for run in options.runs if not (run / STATE_FILE).is_file()]
    if missing:
        print(f"error: {missing[0]} has no {STATE_FILE}: give folders of finished runs", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for run in options.runs:
        for name, record in endings_of(run, split).items():
            write(options.output / options.folder, name, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
