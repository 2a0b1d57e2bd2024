"""docs/exactness.md: what is measured of a split, and that the page shows what was recorded."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from batches import hand_batch, update_of

from benchmarks import split_dependence as benchmark
from paec_loss.methods import METHODS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def record() -> benchmark.Record:
    return benchmark.Record(json.loads(benchmark.RESULTS.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, int, str, str], dict]:
    before = torch.get_num_threads(), torch.get_rng_state()
    records = benchmark.quick()
    torch.set_num_threads(before[0])
    torch.set_rng_state(before[1])
    return {(r["split"], r["parts"], r["method"], r["variant"]): r for r in records if "variant" in r}


# ---- a small measurement ---------------------------------------------------------------------------------------------


def test_ours_is_the_same_for_every_split(found):
    ours = {key: r for key, r in found.items() if key[3] == "ours"}
    splits = {key[:2] for key in ours}
    assert splits == {(split, n) for split, numbers in benchmark.PLAN["later"] for n in numbers}
    assert {key[2].split()[0] for key in ours} == {e.name.split()[0] for e in benchmark.ENTRIES}
    for key, r in ours.items():
        assert r["overlap"] == pytest.approx(1, abs=1e-5) or key[2] == "none", key
        assert r["angle"] < math.degrees(1e-5) and r["norm"] == pytest.approx(1, abs=1e-5), key


def test_one_micro_batch_is_the_released_code(found):
    """In one piece ours is verl's KL-Cov: the same gradient, whichever of identical responses is penalised."""
    r = found["whole", 1, "kl_cov 0.002", "ours against released"]
    assert r["angle"] < 1e-3 and r["own_angle"] < 1e-3
    assert r["norm"] == pytest.approx(1, abs=1e-5) and r["own_norm"] == pytest.approx(1, abs=1e-5)


def test_released_code_depends_on_the_split(found):
    for name in ("kl_cov 0.002", "forking_tokens"):
        assert found["dynamic", 8, name, "released"]["overlap"] < 0.95
    assert found["dynamic", 8, "forking_tokens", "released"]["angle"] > 0.1
    assert found["dynamic", 8, "clip_cov 0.0002", "released"]["acted"] > 1  # at least one token of each micro-batch


def test_verls_clip_cov_has_our_candidates():
    """The choice among them is random, so all are dropped: with one micro-batch the same tokens and gradient."""
    entry = benchmark.clip_cov(1.0)
    _, model, batch = next(benchmark.mini_batches(0, 4))
    run = benchmark.Measured(model, batch)
    theirs, ours = run.released(entry, run.whole), run.ours([entry], run.whole)[entry.name]
    assert 1 < theirs.acted.sum() < run.tokens.response_mask.sum() / 2
    assert torch.equal(theirs.acted, ours.acted)
    assert benchmark.angle(theirs.gradient, ours.gradient) < 1e-3


# ---- its parts -------------------------------------------------------------------------------------------------------


def test_overlap_and_angle_by_hand():
    a, b = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert benchmark.overlap(a, b) == pytest.approx(1 / 3)
    assert benchmark.overlap(torch.tensor([0.2, 0.4]), torch.tensor([0.1, 0.4])) == pytest.approx(5 / 6)
    assert benchmark.overlap(a * 0, a * 0) is None
    assert benchmark.angle(a.double(), b.double()) == pytest.approx(60)
    tilted, straight = torch.tensor([[1.0, 1e-9], [2.0, 0.0]], dtype=torch.float64)
    assert benchmark.angle(tilted, straight) == pytest.approx(math.degrees(1e-9))
    assert benchmark.angle(a, a * 0) is None


@pytest.mark.parametrize("split", benchmark.SPLITS)
@pytest.mark.parametrize("parts", benchmark.PARTS)
def test_splits_are_complete(split, parts):
    lengths = torch.tensor([25, 40, 27, 27, 61, 23, 22, 32, 60, 29, 31, 24])
    cut = benchmark.SPLITS[split](lengths, parts, 1)
    assert len(cut) == parts and sorted(torch.cat(cut).tolist()) == list(range(12))
    if split == "length":
        assert all(lengths[a].max() <= lengths[b].min() for a, b in zip(cut, cut[1:], strict=False))


def test_sents_released_penalty_by_hand():
    """Of five tokens K = 4 have low entropy; their mean A is 1 and their mean log p -2, so c = -1.5, 0, 1, -0.5."""
    log_prob, old = [[-0.5, -2.0, -3.0, -2.5, -9.0]], [[-1.0, -2.0, -3.25, -2.0, -9.0]]
    tokens = hand_batch(log_prob, [[0.0, 2.0, 0.0, 2.0, 5.0]], old, entropy=[[0.1, 0.2, 0.3, 0.4, 0.9]])
    loss, weight = benchmark.released_sent(tokens, update_of(tokens, METHODS["sent"]()), ratio=0.3)
    assert weight.tolist() == [[0.5, 0.0, 2.0, 0.0, 0.0]]
    assert loss.item() == pytest.approx((0.5 * 0.5 - 2 + 2 * 0.25 - 2 * math.exp(-0.5) - 5) / 5)


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_record(record):
    text = benchmark.PAGE.read_text(encoding="utf-8")
    assert benchmark.written(text, record) == text, "run python -m benchmarks.split_dependence"


def test_the_figure_shows_the_record(record):
    panels = benchmark.picture(record).axes
    by_label = [record.get("later", "dynamic", n, benchmark.LINES[0], "released", "overlap") for n in benchmark.PARTS]
    expected = [1.0, *(sum(values) / len(values) for values in by_label)]
    assert list(panels[0].lines[0].get_ydata()) == [1.0] * 4
    assert list(panels[0].lines[1].get_ydata()) == pytest.approx(expected)
    assert "<svg" in benchmark.PICTURE.read_text(encoding="utf-8")


def test_the_record_is_complete(record):
    assert record.about == {"seeds": 5, "prompts": 8}
    for case, plan in benchmark.PLAN.items():
        assert len([b for b in record.batches if b["case"] == case]) == record.about["seeds"]
        for split, numbers in plan:
            for n in numbers:
                for entry in benchmark.ENTRIES[:-1]:
                    values = record.get(case, split, n, entry.name, "released", "angle")
                    assert len(values) == record.about["seeds"]


def test_the_entries_are_the_published_fields():
    assert benchmark.ENTRIES[0].ours == METHODS["clip_cov"]() and benchmark.ENTRIES[2].ours == METHODS["kl_cov"]()
    assert replace(benchmark.ENTRIES[1].ours, ratio=2e-4) == METHODS["clip_cov"]()
