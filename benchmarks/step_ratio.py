"""How much longer a step takes with PAEC than without: `python -m benchmarks.step_ratio [--rounds 20]`

Two runs one after the other cannot say it on a machine whose speed changes by half within minutes. Here two trainings
of the quick start's experiment are there at once, and one of them is always stopped (SIGSTOP of all its processes). A
round is a step of A, two of B and one of A: what slows one slows the other, and each continues once after the other and
once after itself. A step is timed from the moment its processes continue to the line that it writes at its end.

Prints the median of the rounds' ratios with its 95 % interval (two of the sorted ratios, by the sign test) and the
median seconds of both: of the step, of its stages and of the processor time of all processes. Stages are the trainer's
own timers; the rollout, at whose start a training is stopped, is what they leave. Nothing else should run meanwhile.
Takes 8 GiB. `--out` gets JSON.

The prepared model and data are those of PAEC_TINY_DIR (default data/tiny; the quick start makes them).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.step import SKIPPED, STAGES, VARIANTS, failed, lines_of, members, started
from data_prep.files import atomic_write

POLL = 0.002
"""Seconds between two looks at whether a step has ended."""

ROLLOUT = "rollout"
"""The stage at whose start a training is stopped: its timer does not measure it."""


class Turn:
    """A training that runs only while it has its turn.

    Args:
        variant: one of `benchmarks.step.VARIANTS`.
        steps: how many it could train; it is ended before.
        root: an empty folder.
        given: overrides.
    """

    def __init__(self, variant: str, steps: int, root: Path, given: list[str]):
        self.variant = variant
        self.tree, self.metrics, self.log = started(variant, steps, root, given)
        self.lines = 0

    def warm_up(self) -> None:
        """Run until the first steps, which are not counted, and the validation before them are on record."""
        while self.lines <= SKIPPED:
            self._run()

    def step(self) -> dict[str, float]:
        """A step; the seconds that it took, those of its stages, and processor seconds."""
        used = self._used()
        took = self._run()
        line = lines_of(self.metrics)[-1]
        stages = {name: line[key] for name, key in STAGES.items() if name != ROLLOUT}
        rest = took - sum(stages.values())
        return {"step": took, **stages, f"{ROLLOUT}, other": rest, "processor seconds": self._used() - used}

    def _run(self) -> float:
        """Run until the next line of its metrics, then stop; the seconds that took."""
        began = time.monotonic()
        self._signal(signal.SIGCONT)
        while (lines := self._written()) == self.lines:
            if self.tree.process.poll() is not None:
                raise failed(self.variant, self.log)
            time.sleep(POLL)
        took = time.monotonic() - began
        self._signal(signal.SIGSTOP)
        self.lines = lines
        return took

    def end(self) -> None:
        """End its processes."""
        self._signal(signal.SIGCONT)
        self.tree.end()

    def _written(self) -> int:
        return self.metrics.read_bytes().count(b"\n") if self.metrics.exists() else 0

    def _used(self) -> float:
        used = 0.0
        for member in members(self.tree):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                used += times.user + times.system
        return used

    def _signal(self, number: int) -> None:
        for member in members(self.tree):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(number)


def in_turns(variants: Sequence[str], rounds: int, given: list[str]) -> list[list[dict[str, float]]]:
    """What a step of each variant took (`Turn.step`), the mean of its two steps in each round."""
    with tempfile.TemporaryDirectory(prefix="paec-step-") as name, contextlib.ExitStack() as ends:
        trainings: list[Turn] = []
        for variant in variants:
            root = Path(name) / str(len(trainings))
            root.mkdir()
            trainings.append(Turn(variant, 2 * rounds + SKIPPED + 2, root, given))
            ends.callback(trainings[-1].end)
            print(f"{variant} starts", flush=True)
            trainings[-1].warm_up()
        found = []
        for number in range(rounds):
            took: dict[Turn, list[dict[str, float]]] = {training: [] for training in trainings}
            for training in (*trainings, *trainings[::-1]):
                took[training].append(training.step())
            found.append([{key: statistics.fmean(one[key] for one in of) for key in of[0]} for of in took.values()])
            first, second = (of["step"] for of in found[-1])
            print(f"round {number + 1}/{rounds}: {first:.2f} s, {second:.2f} s", flush=True)
        return found


def outside_of_interval(count: int) -> int:
    """How many of `count` sorted values lie beyond each end of the 95 % interval of their median (sign test)."""
    below, outside = 0.0, 0
    for outside in range(count):
        below += math.comb(count, outside) / 2**count
        if 2 * below > 0.05:
            break
    if outside < 1:
        raise ValueError(f"{count} values: a median of fewer than 6 has no 95 % interval")
    return outside - 1


def summary(rounds: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The median of first / second with its 95 % interval, and the medians of both."""
    ratios, outside = sorted(first / second for first, second in rounds), outside_of_interval(len(rounds))
    return {
        "ratio": statistics.median(ratios),
        "low": ratios[outside],
        "high": ratios[-1 - outside],
        "first": statistics.median(first for first, _ in rounds),
        "second": statistics.median(second for _, second in rounds),
    }


def main() -> None:
    """Measure the two variants and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="each is two steps of both")
    parser.add_argument(
        "--variants", nargs=2, choices=VARIANTS, default=("ours, paec", "ours, none"), metavar=("A", "B")
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for both")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.rounds < 6:
        parser.error(f"--rounds={options.rounds}: must be at least 6: a median of fewer has no 95 % interval")
    found = in_turns(options.variants, options.rounds, options.set)
    got = {what: summary([(first[what], second[what]) for first, second in found]) for what in found[0][0]}
    if options.out:
        with atomic_write(options.out) as partial:
            content = {"variants": options.variants, "rounds": found, **got}
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{' / '.join(options.variants)}, medians of {len(found)} rounds")
    for what, of in got.items():
        print(
            f"{what}: {of['ratio']:.3f} [{of['low']:.3f}, {of['high']:.3f}], {of['first']:.2f} and {of['second']:.2f}"
        )


if __name__ == "__main__":
    main()
