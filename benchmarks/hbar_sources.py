"""How far off is Hbar when it is not measured anew? `python -m benchmarks.hbar_sources [--steps 12]`

Runs the quick start's experiment once for each `method.statistics_from` and compares the Hbar that an update used with
the one that the same update's own forward gave. Prints a table; JSON beside the runs. About 3 minutes a source on 2
cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from recipe.paec.common.records import read_metrics

SOURCES = ("step", "exact")


def measure(source: str, steps: int, root: Path) -> dict[str, float]:
    """Mean over the steps of a run: Hbar, and |mean of (Hbar used - Hbar measured) over the step's two updates|."""
    overrides = [f"method.statistics_from={source}", f"trainer.total_training_steps={steps}", f"run.root={root}"]
    overrides += ["trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=-1", "run.fresh=true"]
    command = [sys.executable, "-m", "recipe.paec.train", "experiment=tiny_cpu", *overrides]
    subprocess.run(command, check=True)
    records = read_metrics(root / f"tiny_cpu-paec-statistics_from={source}" / "metrics.jsonl")[1:]
    return {
        "selected_entropy": mean(r["actor/paec/update_selected_entropy"] for r in records),
        "staleness": mean(abs(r["actor/paec/update_staleness"]) for r in records),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--root", type=Path, default=Path("outputs/hbar_sources"))
    options = parser.parse_args()
    table = {source: measure(source, options.steps, options.root) for source in SOURCES}
    (options.root / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print("| statistics_from | abs(Hbar used - measured) / Hbar |\n|---|---|")
    for source, row in table.items():
        print(f"| {source} | {row['staleness'] / row['selected_entropy']:.1e} |")


if __name__ == "__main__":
    main()
