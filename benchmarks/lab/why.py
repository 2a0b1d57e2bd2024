"""What happens inside a training: which tokens lose their entropy, which ones PAEC's mask takes, what its term does.

    python -m benchmarks.lab.why --method none --seed 1

trains the shipped defaults in the laboratory, looks at every response of every step, and writes means over 25 steps to
benchmarks/results/lab/why/none-seed1.json: two minutes on one core. docs/results.md has the tables.

A response writes down two steps and an expression, `7-5=2,1*2=2;1*(7-5)`; its kinds of tokens are KINDS.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.lab.records import machines_and_days, write
from data_prep.arithmetic import choose_avx2
from paec_loss import PAEC, Rollouts, Tokens, TokenStatistics, Update, position_mask
from recipe.lab import grpo
from recipe.lab.batch import Batch
from recipe.lab.settings import Settings, settings_of
from recipe.lab.task import Task, rows_of
from recipe.paec.common.repository import REPOSITORY

RECORDS = REPOSITORY / "benchmarks" / "results" / "lab" / "why"
FIGURE = "results_why.svg"
WINDOW = 25
"""Steps that a number is the mean of."""
SHIPPED = PAEC()
KINDS = ("first number", "operator", "second number", "result", "punctuation", "expression", "end", "other")
"""Of a step `a+b=r`: a, +, b, r; = , and ; what follows the ; the end of sequence. Other: not of this form."""
_STEP = r"(?P<a{0}>\d+)(?P<o{0}>[-+*])(?P<b{0}>\d+)(?P<e{0}>=)(?P<r{0}>\d+)"
_TRACE = re.compile(f"{_STEP.format(1)}(?P<e3>,){_STEP.format(2)}(?P<e4>;)(?P<x1>.+)", re.DOTALL)
_KIND_OF = dict(zip("aobrex", KINDS, strict=False))


def kinds_of(text: str, tokens: int) -> list[int]:
    """The kind of every token of a response, as places in KINDS; a character is a token, and the end is one more."""
    kinds = [KINDS.index("other")] * tokens
    found = _TRACE.fullmatch(text)
    if found is None or tokens != len(text) + 1:
        return kinds
    for name in found.groupdict():
        for place in range(*found.span(name)):
            kinds[place] = KINDS.index(_KIND_OF[name[0]])
    kinds[-1] = KINDS.index("end")
    return kinds


class Watch:
    """Sums over the tokens and updates of a window."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = defaultdict(float)

    def tokens(self, statistics: TokenStatistics, inside: Tensor, kinds: Tensor, right: Tensor) -> None:
        """The responses of a step: statistics [B, R] with PAEC's nucleus, kinds [B, R], right [B]."""
        mask = position_mask(statistics, inside, SHIPPED)[inside].double()
        entropy, kind = statistics.entropy[inside].double(), kinds[inside]
        for name, values in (("count", torch.ones_like(mask)), ("entropy", entropy), ("mask", mask)):
            self.sums[name] += torch.zeros(len(KINDS), dtype=torch.float64).index_add(0, kind, values).numpy()
        good = right[:, None].expand(inside.shape)[inside]
        for name, part in (("right", good), ("wrong", ~good)):
            self.sums[name] += np.array([entropy[part].sum().item(), part.sum().item()])
        single = statistics.nucleus_size[inside] == 1
        self.sums["single"] += np.array([mask[single].sum().item(), mask.sum().item()])

    def gradients(self, term: Tensor, whole: Tensor) -> None:
        """The gradients of an update, of the method's term and of the whole loss."""
        policy = whole - term
        norms = term.norm().item(), policy.norm().item()
        cosine = (term @ policy).item() / (norms[0] * norms[1]) if min(norms) > 0 else 0.0
        self.sums["gradient"] += np.array([norms[0] / norms[1] if norms[1] > 0 else 0.0, cosine, 1.0])

    def means(self) -> dict[str, Any]:
        """What is recorded of the window."""
        s = self.sums
        count = np.maximum(s["count"], 1)
        found: dict[str, Any] = {
            "share": s["count"] / s["count"].sum(),
            "entropy": s["entropy"] / count,
            "mask": s["mask"] / count,
            "mass": s["mask"] / s["mask"].sum(),
        }
        for name in ("right", "wrong", "single"):
            found[name] = s[name][0] / s[name][1] if s[name][1] else 0.0
        if "gradient" in s:
            found |= dict(zip(("ratio", "cosine"), s["gradient"][:2] / s["gradient"][2], strict=True))
        return {name: np.round(value, 5).tolist() for name, value in found.items()}


def flat_gradient(of: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The gradient of a scalar as one vector, zeros where it does not depend on a parameter."""
    if not of.requires_grad:
        return torch.cat([torch.zeros(p.numel()) for p in parameters])
    found = torch.autograd.grad(of, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def watched_objective(watch: Watch, parameters: Sequence[Tensor]) -> Any:
    """`grpo.objective`, whose gradients `watch` sees."""
    original = grpo.objective

    def objective(
        tokens: Tokens, step_statistics: TokenStatistics, updates: list[Update], settings: Settings
    ) -> tuple[Tensor, dict[str, float]]:
        loss, metrics = original(tokens, step_statistics, updates, settings)
        sources = {
            "exact": replace(tokens, statistics=tokens.statistics.detach()),
            "step": replace(tokens, statistics=step_statistics),
        }
        term = settings.stack.loss_term(tokens, settings.stack.prepare(sources, updates), updates)
        watch.gradients(flat_gradient(term, parameters), flat_gradient(loss, parameters))
        return loss, metrics

    return objective


def watched_step(state: grpo.State, settings: Settings, task: Task, watch: Watch) -> None:
    """`grpo.step`, whose responses and gradients `watch` sees."""
    original, objective = grpo.rollouts_of, grpo.objective

    def rollouts_of(batch: Batch, *place: Any) -> Rollouts:
        rollouts = original(batch, *place)
        inside, tokens = rollouts.response_mask, rollouts.tokens
        logits = batch.sampled.logits.flatten(0, 1)[inside]
        statistics = grpo.statistics_of(logits, tokens, inside, settings, SHIPPED.top_p)
        kinds = torch.zeros(inside.shape, dtype=torch.int64)
        rows = rows_of(tokens, inside)
        for number, (row, text) in enumerate(zip(rows, task.texts(rows), strict=True)):
            kinds[number, : len(row)] = torch.tensor(kinds_of(text, len(row)))
        watch.tokens(statistics, inside, kinds, batch.scores.flatten() > 0)
        return rollouts

    if settings.stack.has("loss_term"):
        objective = watched_objective(watch, list(state.policy.parameters.values()))
    with mock.patch.multiple(grpo, rollouts_of=rollouts_of, objective=objective):
        grpo.step(state, settings, task)


def watched(method: str, seed: int, steps: int = 150) -> dict[str, Any]:
    """The record of a training."""
    settings = settings_of([f"method={method}", f"seed={seed}", f"steps={steps}", "output=unused"])
    torch.set_num_threads(1)
    state = grpo.started(settings)
    task = Task(settings.task, state.policy.positions, settings.max_response_length)
    windows: dict[str, list[Any]] = defaultdict(list)
    for last in range(WINDOW, steps + 1, WINDOW):
        watch = Watch()
        for _ in range(WINDOW):
            watched_step(state, settings, task, watch)
        for name, value in watch.means().items():
            windows[name].append(value)
        print(f"{method}, seed {seed}: step {last}/{steps}", flush=True)
    about = {"date": date.today().isoformat(), "cores": os.cpu_count()}
    return {"method": method, "seed": seed, **about, "step": [*range(WINDOW, steps + 1, WINDOW)], **windows}


# ---- the page --------------------------------------------------------------------------------------------------------

ROWS = (
    ("none", "right", "GRPO: token entropy of right responses"),
    ("paec", "right", "PAEC: token entropy of right responses"),
    ("none", "wrong", "GRPO: token entropy of wrong responses"),
    ("paec", "wrong", "PAEC: token entropy of wrong responses"),
    ("none", "single", "GRPO: share of the mask's mass at tokens whose nucleus is one token"),
    ("paec", "single", "PAEC: share of the mask's mass at tokens whose nucleus is one token"),
    ("paec", "ratio", "PAEC: norm of the term's gradient / that of the policy loss"),
    ("paec", "cosine", "PAEC: cosine of the two"),
)
"""Method, quantity and words of the second table."""


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Method -> its records by seed; nothing unless GRPO and PAEC have the same seeds."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(folder.glob("*-seed*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        found[record["method"]].append(record)
    seeds = {name: [record["seed"] for record in of] for name, of in found.items()}
    return found if seeds.get("none") and seeds.get("paec") == seeds["none"] else {}


def mean(found: dict[str, list[dict[str, Any]]], method: str, quantity: str) -> np.ndarray:
    """[windows, ...] of a method's quantity, the mean over its seeds."""
    return np.array([record[quantity] for record in found[method]]).mean(0)


def _mask(share: np.ndarray, mass: np.ndarray, ratio: np.ndarray) -> str:
    """Which tokens the mask takes at first, and what its term weighs; by kind, and by window."""
    kinds = {kind: place for place, kind in enumerate(KINDS)}
    chosen, forced = [kinds[kind] for kind in KINDS[:3]], [kinds[kind] for kind in ("result", "punctuation", "end")]
    return (
        f"In the first {WINDOW} steps {mass[chosen].sum():.0%} of the mask's mass is at the numbers and operators "
        f"that a step chooses, which are {share[chosen].sum():.0%} of the tokens, and {mass[forced].sum():.1%} at "
        f"results, punctuation and the end, which are {share[forced].sum():.0%}. The gradient of PAEC's term is "
        f"{ratio[0]:.3f} of the policy loss's then and {ratio[-1]:.2f} in the last {WINDOW} steps."
    )


def section(folder: Path) -> str:
    """The section of docs/results.md for the records of `folder`; "" if `read` finds nothing."""
    found = read(folder)
    if not found:
        return ""
    seeds, steps = [record["seed"] for record in found["none"]], found["none"][0]["step"]
    records = [record for of in found.values() for record in of]
    about = machines_and_days((r["cores"] for r in records), (r["date"] for r in records))
    share, mass = mean(found, "paec", "share")[0], mean(found, "paec", "mass")[0]
    first, last = mean(found, "none", "entropy")[[0, -1]]
    entropy = (first, last, mean(found, "paec", "entropy")[-1])
    lines = [
        "## Why: the tokens, the mask and the term",
        "",
        f"All responses of every step of the shipped defaults, seeds {', '.join(map(str, seeds))}, means over "
        f"seeds and {WINDOW} steps; `python -m benchmarks.lab.why --method METHOD --seed SEED`; "
        f"{about}.",
        "",
        f"![Entropy by kind of token over the training; shares of the mask's mass]({FIGURE})",
        "",
        _mask(share, mass, mean(found, "paec", "ratio")),
        "",
        f"A response is two steps and an expression, `7-5=2,1*2=2;1*(7-5)`. By kind of token, in steps 1 to {WINDOW} "
        f"and the last {WINDOW}; entropy in nats:",
        "",
        f"| | share of tokens | share of the mask's mass | entropy, first {WINDOW} steps | last, GRPO | last, PAEC |",
        "|---|---|---|---|---|---|",
    ]
    for place, kind in enumerate(KINDS):
        cells = [f"{value[place]:.2f}" for value in (share, mass)] + [f"{value[place]:.3f}" for value in entropy]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Over the training (steps 1 to {WINDOW}, and so on):",
        "",
        f"| | {' | '.join(f'to step {step}' for step in steps)} |",
        f"|---|{'---|' * len(steps)}",
    ]
    for method, quantity, words in ROWS:
        lines.append(f"| {words} | {' | '.join(f'{value:.3f}' for value in mean(found, method, quantity))} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    choose_avx2()
    parser = argparse.ArgumentParser(description="Trains in the laboratory, and records what happens to the tokens.")
    parser.add_argument("--method", default="paec")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=150, help=f"a multiple of {WINDOW}")
    parser.add_argument("--records", type=Path, default=RECORDS)
    options = parser.parse_args(arguments)
    if options.steps < WINDOW or options.steps % WINDOW:
        parser.error(f"--steps {options.steps}: must be a positive multiple of {WINDOW}")
    write(
        options.records,
        f"{options.method}-seed{options.seed}",
        watched(options.method, options.seed, options.steps),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
