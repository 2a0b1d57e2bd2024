"""The simulation behind docs/comparing.md: what it draws, and that the page shows what was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import interval_coverage as benchmark
from recipe.paec.compare.comparison import FEW_SEEDS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads(benchmark.FILE.read_text(encoding="utf-8"))


def test_two_methods_are_equally_good():
    rng = np.random.default_rng(0)
    difficulty = np.full(2000, 0.5)
    a, b = (benchmark.scored(rng, difficulty, 20, luck=0.02) for _ in range(2))
    assert a.shape == (20, 2000)
    assert (a - b).mean() == pytest.approx(0, abs=4 * np.sqrt(2 * (0.02**2 / 20 + 0.1**2 / 2000)))
    # A training's mean over many problems varies by its luck; a problem's over trainings by the method's ability there.
    assert a.mean(1).std(ddof=1) == pytest.approx(0.02, rel=0.5)
    spread = np.sqrt(0.1**2 + (0.05**2 + 0.02**2 + 0.25 / benchmark.SAMPLES) / 20)
    assert a.mean(0).std() == pytest.approx(spread, rel=0.1)


def test_a_small_simulation_counts_every_interval():
    found = benchmark.measure(seeds=3, problems=30, luck=0.02, trials=10)
    assert list(found) == ["problems", "seeds and problems", "shared seeds and problems", "t over pairs of seeds"]
    assert all(0 < count <= 10 for count in found.values())
    assert found == benchmark.measure(seeds=3, problems=30, luck=0.02, trials=10), "seeded"


def test_the_record_says_what_the_page_and_the_caption_say(record):
    trials = record["about"]["trials"]
    shares = {(c["luck"], c["problems"], c["seeds"]): {k: v / trials for k, v in c["covered"].items()}
              for c in record["cases"]}  # fmt: skip
    assert trials == benchmark.TRIALS and len(shares) == 16
    two_level = ("seeds and problems", "shared seeds and problems")
    assert all(of[name] >= 0.93 for (_, _, s), of in shares.items() if s >= FEW_SEEDS for name in two_level)
    few = [of[name] for (luck, p, s), of in shares.items() if luck and p == 200 and s < FEW_SEEDS for name in two_level]
    assert max(few) < 0.93, "with fewer seeds the caption warns"
    assert min(of["problems"] for (luck, _, _), of in shares.items() if luck) < 0.7


def test_the_page_has_the_table(record):
    page = (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")
    assert "\n".join(benchmark.table(record)) in page
