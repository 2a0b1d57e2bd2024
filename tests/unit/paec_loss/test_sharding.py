"""A vocabulary split over 2 and 4 gloo ranks: values, gradients, what is exchanged, errors that reach every rank."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from ranks import torchrun

from paec_loss import token_statistics

NAMES = ("log_prob", "entropy", "nucleus_entropy")
LIMITS = {"_BLOCK": 128, "_PEAKS": 64, "_BUCKETS_SHARDED": 64, "_LIST_SHARDED": 256}
LONG_WAY = {"_BLOCK": 4, "_PEAKS": 2, "_BUCKETS_SHARDED": 4, "_LIST_SHARDED": 1}


def rows(vocab_size: int, dtype=torch.float32) -> torch.Tensor:
    """Twelve rows of every kind: peaked, flat, tied, one-hot, forks across the shards, holes, NaN, inf."""
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn(12, vocab_size, generator=generator)
    logits[0] *= 5
    logits[1] *= 0.01
    logits[2] = 3.0  # all equal, over all ranks
    logits[3] = logits[3].round()  # a handful of values
    logits[4] -= 100
    logits[4, vocab_size // 2] = 0.0  # one-hot
    logits[5, [0, -1]] = 12.0  # a two-way fork across the first and the last rank, exactly equal
    logits[6, 0], logits[6, -1] = 12.0, 11.9
    logits[7, : vocab_size // 2] = -math.inf  # shards without a possible token
    logits[8, 1:] = -math.inf
    logits[9, vocab_size // 3] = math.nan
    logits[10, -1] = math.inf
    logits[11] = torch.arange(vocab_size) * 1e-3
    return logits.to(dtype)


def peaked(vocab_size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(12, vocab_size, generator=generator)
    logits[:, :: vocab_size // 10] += 14 * torch.rand(12, 10, generator=generator)
    logits[:, 1] = 20.0
    return logits


def case(name: str, **changes) -> dict:
    base = {
        "name": name,
        "logits": rows(1000),
        "temperature": torch.linspace(0.5, 1.5, 12),
        "top_p": [0.8],
        "widths": None,
        "rows": {},
        "shift_labels": {},
        "dtensor": False,
        "inplace": False,
        "limits": LIMITS,
    }
    base |= changes
    vocab_size, tokens = base["logits"].shape[-1], base["temperature"].numel()
    labels = torch.randint(vocab_size, (tokens,), generator=torch.Generator().manual_seed(1))
    labels[3] = -100
    base["labels"] = labels.reshape(base["temperature"].shape)
    return base


GOOD = [
    *(case(f"p{p}", top_p=[p]) for p in (0.05, 0.5, 0.8, 0.95, 0.999, 1.0)),
    *(case(f"long-p{p}", top_p=[p], limits=LONG_WAY) for p in (0.3, 0.8, 0.99)),
    case("bfloat16", logits=rows(1000, torch.bfloat16)),
    case("float64", logits=rows(1000, torch.float64)),
    case("odd", logits=rows(1013)),
    case("long-odd", logits=rows(1013), limits=LONG_WAY),
    case("three-tokens", logits=rows(64)[:, :3]),  # with four ranks, one has none
    case("dtensor", dtensor=True),
    case("dtensor-odd", logits=rows(1013), dtensor=True),
    case("in-place", inplace=True),
    case("dtensor-in-place", inplace=True, dtensor=True),
    case("batched", logits=rows(1000).reshape(3, 4, 1000), temperature=torch.linspace(0.5, 1.5, 12).reshape(3, 4)),
    case("peaked", logits=peaked(20000)),
]
BAD = {
    "short-rank": (
        case("short-rank", rows={1: 7}),
        {
            0: "ValueError: group: the ranks have [12, 7",
            1: "ValueError: group: the ranks have [12, 7",
        },
    ),
    "other-labels": (
        case("other-labels", shift_labels={0: 1}),
        {
            0: "ValueError: group: labels, temperature or top_p differ",
            1: "ValueError: group: labels, temperature or top_p differ",
        },
    ),
    "other-top-p": (
        case("other-top-p", top_p=[0.8, 0.9]),
        {0: "ValueError: group: labels, temperature or top_p differ"},
    ),
    "bad-top-p": (
        case("bad-top-p", top_p=[0.8, 1.8]),
        {
            0: "ValueError: group: rank 1 was called with bad arguments",
            1: "ValueError: top_p=1.8: must be in (0, 1]",
        },
    ),
    "high-label": (
        case("high-label", shift_labels=dict.fromkeys(range(4), 1000)),
        {0: "ValueError: labels go", 1: "ValueError: labels go"},
    ),
}


@pytest.fixture(scope="module", params=[2, 4])
def results(request, tmp_path_factory) -> tuple[int, Path]:
    work = tmp_path_factory.mktemp(f"shards{request.param}")
    torch.save([*GOOD, *(bad for bad, _ in BAD.values())], work / "cases.pt")
    torchrun("sharding_worker.py", request.param, work, timeout=300)
    return request.param, work


def expected(case: dict):
    """The whole vocabulary on one rank, by the sorted definition, in float64 on the same numbers."""
    logits = case["logits"].double().clone().requires_grad_()
    arguments = dict(top_p=case["top_p"][0], temperature=case["temperature"], backend="reference")
    statistics = token_statistics(logits, case["labels"], **arguments)
    weight = (
        torch.linspace(32, 96, case["labels"].numel(), dtype=torch.float64)
        .round()
        .div(64)
        .reshape(case["labels"].shape)
    )
    total = sum((i + 1) * (weight * getattr(statistics, name)).sum() for i, name in enumerate(NAMES))
    return statistics.detach(), torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case["name"])
def test_values_and_gradients_are_those_of_the_whole_vocabulary(case, results):
    ranks, work = results
    statistics, gradient = expected(case)
    parts = [torch.load(work / f"{case['name']}-{rank}.pt") for rank in range(ranks)]
    for part in parts:
        assert part["error"] is None
        assert part["statistics"]["vocab_size"] == case["logits"].shape[-1]
        assert torch.equal(part["statistics"]["nucleus_size"], statistics.nucleus_size)
        for name in (*NAMES, "nucleus_mass", "top1_log_prob", "top2_log_prob"):
            got, want = part["statistics"][name].double(), getattr(statistics, name)
            torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-38, equal_nan=True)
            assert torch.equal(part["statistics"][name].nan_to_num(), parts[0]["statistics"][name].nan_to_num())
    whole = torch.cat([part["gradient"] for part in parts], dim=-1)
    rtol = {torch.float64: 1e-11, torch.float32: 1e-6, torch.bfloat16: 0.004}[whole.dtype]
    sound = statistics.sound
    torch.testing.assert_close(whole[sound].double(), gradient[sound], rtol=rtol, atol=1e-38)
    assert whole[~sound][case["logits"][~sound] != -math.inf].isnan().all()


def test_little_is_exchanged_and_nothing_in_the_backward_pass(results):
    ranks, work = results
    for case in GOOD:
        tokens = case["temperature"].numel()
        for rank in range(ranks):
            part = torch.load(work / f"{case['name']}-{rank}.pt")
            assert part["backward"] == []
            if case["limits"] is LIMITS:
                # Agreement, sums, peaks, counts, two for each round of histograms, two for the listed tokens.
                assert len(part["forward"]) <= 14, case["name"]
                # Three sums for each of 64 buckets are the most that a token ever sends at once, whatever V is.
                assert max(numel for _, numel in part["forward"]) <= 3 * 64 * tokens, case["name"]


def test_peaked_rows_need_six_exchanges_of_a_few_numbers(results):
    ranks, work = results
    for rank in range(ranks):
        forward = torch.load(work / f"peaked-{rank}.pt")["forward"]
        assert len(forward) == 6  # agreement, sums, peaks, counts, and two for the listed tokens
        assert sum(numel for _, numel in forward) <= 100 * 12
        assert len(torch.load(work / f"p1.0-{rank}.pt")["forward"]) == 3  # agreement, sums, counts


@pytest.mark.parametrize("name", BAD)
def test_an_error_of_one_rank_is_raised_on_all(name, results):
    ranks, work = results
    for rank in range(ranks):
        error = torch.load(work / f"{name}-{rank}.pt")["error"]
        assert error.startswith(BAD[name][1].get(rank, "ValueError: ")), error
