"""Token statistics against a float64 oracle in plain loops, and gradients against finite differences and autograd."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

import paec_loss
from paec_loss import TokenStatistics
from paec_loss.backends import numba_backend, reference, torch_backend

torch.set_num_threads(1)

INF, NAN = math.inf, math.nan
FLOATS = ("log_prob", "entropy", "nucleus_entropy", "nucleus_mass", "top1_log_prob", "top2_log_prob")
DIFFERENTIABLE = ("log_prob", "entropy", "nucleus_entropy")


TINY = {"_BLOCK": 4, "_PEAKS": 2, "_LIST": 1, "_BUCKETS": 4, "_PIECE": 3, "_ROWS": 2}
"""Limits of the torch backend that make every row go the long way: several rounds of histograms, lists of one."""


TINY_NUMBA = {"_BLOCK": 4, "_LIST": 1, "_BUCKETS": 4, "_COPY": 600}
"""The same for the numba backend, and copies of a few rows."""


@pytest.fixture(params=["reference", "torch", "torch, long way", "numba", "numba, long way"])
def token_statistics(request):
    """The function under test with each backend that runs on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch, long way":
            for name, value in TINY.items():
                patch.setattr(torch_backend, name, value)
        if request.param == "numba, long way":
            for name, value in TINY_NUMBA.items():
                patch.setattr(numba_backend, name, value)
        yield functools.partial(paec_loss.token_statistics, backend=request.param.split(",")[0])


def oracle_row(logits, label, top_p, temperature=1.0):
    """One row by its definition, in plain loops: a dict with the fields of TokenStatistics."""
    x = [float(z) / temperature for z in logits]
    maximum = max(x)
    total = math.fsum(math.exp(v - maximum) for v in x)
    log_p = [v - maximum - math.log(total) for v in x]
    order = sorted(range(len(x)), key=lambda j: -x[j])
    nucleus, before = [], 0.0
    for j in order:
        if x[j] != -INF and (top_p >= 1 or before < top_p):
            nucleus.append(j)
        before += math.exp(log_p[j])
    mass = math.fsum(math.exp(log_p[j]) for j in nucleus)
    return {
        "log_prob": log_p[label] if label >= 0 else 0.0,
        "entropy": -math.fsum(math.exp(v) * v for v in log_p if v != -INF),
        "nucleus_entropy": -math.fsum(
            math.exp(log_p[j]) / mass * (log_p[j] - math.log(mass)) for j in nucleus if math.exp(log_p[j]) > 0
        ),
        "nucleus_size": len(nucleus),
        "nucleus_mass": mass,
        "top1_log_prob": log_p[order[0]],
        "top2_log_prob": log_p[order[1]] if len(x) > 1 else -INF,
    }


def reference_row(logits, label, top_p, temperature=1.0):
    """log_prob, entropy, nucleus_entropy of one row as differentiable formulas, nucleus weights detached."""
    x = logits / temperature
    log_p = torch.log_softmax(x, dim=-1)
    size = oracle_row(logits.tolist(), label, top_p, temperature)["nucleus_size"]
    threshold = logits.detach().sort(descending=True).values[size - 1]
    ties = logits.detach() == threshold
    above = logits.detach() > threshold
    weight = above.double() + ties.double() * (size - above.sum()).item() / ties.sum().item()
    p = log_p.exp()
    mass = (weight * p).sum()
    return log_p[label], -(p * log_p).sum(), mass.log() - (weight * p * log_p).sum() / mass


def check_against_oracle(stats, logits, labels, top_p, temperature=None, tolerance=1e-12):
    vocab_size = logits.shape[-1]
    rows = logits.double().reshape(-1, vocab_size).tolist()
    scale = [1.0] * len(rows) if temperature is None else temperature.double().reshape(-1).tolist()
    expected = [
        oracle_row(*args, top_p, t)
        for args, t in zip(zip(rows, labels.reshape(-1).tolist(), strict=True), scale, strict=True)
    ]
    for name in FLOATS:
        got = getattr(stats, name)
        assert got.shape == labels.shape
        want = torch.tensor([row[name] for row in expected], dtype=torch.float64).reshape(labels.shape)
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
    assert stats.nucleus_size.reshape(-1).tolist() == [row["nucleus_size"] for row in expected]
    assert stats.vocab_size == vocab_size


def random_case(shape, vocab_size, dtype=torch.float64, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(*shape, vocab_size, generator=generator, dtype=torch.float64) * scale).to(dtype)
    return logits, torch.randint(vocab_size, shape, generator=generator)


def probabilities(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


# ---- values -------------------------------------------------------------------------------------------------------


def test_hand_case(token_statistics):
    stats = token_statistics(probabilities((0.6, 0.3, 0.1)), torch.tensor([1]), top_p=0.8)
    assert stats.nucleus_size.item() == 2
    assert stats.log_prob.item() == pytest.approx(-1.2039728043, abs=1e-10)
    assert stats.entropy.item() == pytest.approx(0.8979457249, abs=1e-10)
    assert stats.nucleus_entropy.item() == pytest.approx(0.6365141683, abs=1e-10)
    assert stats.nucleus_mass.item() == pytest.approx(0.9, abs=1e-12)
    assert stats.top1_log_prob.item() == pytest.approx(-0.5108256238, abs=1e-10)
    assert stats.top2_log_prob.item() == pytest.approx(-1.2039728043, abs=1e-10)


def test_two_way_fork_on_the_boundary_keeps_the_crossing_token(token_statistics):
    stats = token_statistics(probabilities((0.79, 0.20, 0.01), (0.81, 0.18, 0.01)), torch.tensor([0, 0]), top_p=0.8)
    assert stats.nucleus_size.tolist() == [2, 1]
    assert stats.nucleus_entropy.tolist() == pytest.approx([0.5031902964, 0.0], abs=1e-10)
    assert stats.nucleus_mass.tolist() == pytest.approx([0.99, 0.81], abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_uniform(n, token_statistics):
    stats = token_statistics(torch.full((1, n), 5.0, dtype=torch.float64), torch.tensor([0]), top_p=0.9)
    size = math.ceil(0.9 * n)
    assert stats.nucleus_size.item() == size
    assert stats.entropy.item() == pytest.approx(math.log(n), abs=1e-12)
    assert stats.nucleus_entropy.item() == pytest.approx(math.log(size), abs=1e-12)


def test_one_hot_is_exactly_zero(token_statistics):
    stats = token_statistics(torch.tensor([[0.0, -INF, -INF]]), torch.tensor([0]), top_p=0.8)
    values = (stats.log_prob, stats.entropy, stats.nucleus_entropy, stats.nucleus_size, stats.nucleus_mass)
    assert [v.item() for v in values] == [0.0, 0.0, 0.0, 1, 1.0]
    assert stats.top2_log_prob.item() == -INF


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.5, 0.8, 0.95, 0.999, 1.0])
@pytest.mark.parametrize(("shape", "vocab_size"), [((5,), 1), ((2, 3), 17), ((1, 1, 4), 129), ((), 33), ((3,), 2)])
def test_oracle(shape, vocab_size, top_p, token_statistics):
    logits, labels = random_case(shape, vocab_size)
    check_against_oracle(token_statistics(logits, labels, top_p=top_p), logits, labels, top_p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_oracle_of_lower_precision_logits(dtype, token_statistics):
    logits, labels = random_case((4, 5), 300, dtype)
    stats = token_statistics(logits, labels, top_p=0.8)
    assert all(getattr(stats, name).dtype == torch.float32 for name in FLOATS)
    check_against_oracle(stats, logits, labels, 0.8, tolerance=2e-7)


@pytest.mark.parametrize("levels", [1, 2, 3, 6])
@pytest.mark.parametrize("top_p", [0.1, 0.77, 0.93])
def test_oracle_under_heavy_ties(levels, top_p, token_statistics):
    generator = torch.Generator().manual_seed(levels)
    logits = torch.randint(levels, (8, 50), generator=generator).to(torch.bfloat16)
    labels = torch.randint(50, (8,), generator=generator)
    check_against_oracle(token_statistics(logits, labels, top_p=top_p), logits, labels, top_p, tolerance=2e-7)


def test_temperature_per_token_and_scalar(token_statistics):
    logits, labels = random_case((2, 3), 40)
    temperature = torch.tensor([[0.1, 0.5, 1.0], [1.7, 4.0, 30.0]])
    stats = token_statistics(logits, labels, top_p=0.8, temperature=temperature)
    check_against_oracle(stats, logits, labels, 0.8, temperature)
    scalar = token_statistics(logits, labels, top_p=0.8, temperature=0.5)
    torch.testing.assert_close(scalar.entropy[0, 1], stats.entropy[0, 1], rtol=0, atol=1e-15)


def test_a_permutation_of_the_vocabulary_changes_no_bit(token_statistics):
    logits, labels = random_case((6,), 101, torch.bfloat16)
    order = torch.randperm(101, generator=torch.Generator().manual_seed(1))
    here = token_statistics(logits, labels, top_p=0.8)
    there = token_statistics(logits[:, order], order.argsort()[labels], top_p=0.8)
    for name in (*FLOATS, "nucleus_size"):
        assert torch.equal(getattr(here, name), getattr(there, name)), name


@pytest.mark.parametrize("chunk_bytes", [1, 3 * 31 * 64])
def test_chunks_and_strides_change_no_bit(chunk_bytes, monkeypatch, token_statistics):
    wide, labels = random_case((3, 5), 31, torch.float32)  # all arithmetic is float64, so float32 results are stable
    cut = wide.transpose(0, 1).contiguous().transpose(0, 1)[:, 1:].requires_grad_()  # rows that no view can flatten
    whole = cut.detach().clone().requires_grad_()
    results = [gradients_of(token_statistics, whole, labels[:, 1:])]
    results.append(gradients_of(token_statistics, cut, labels[:, 1:]))
    monkeypatch.setitem(torch_backend._CHUNK_BYTES, "cpu", chunk_bytes)
    monkeypatch.setattr(reference, "_CHUNK_BYTES", chunk_bytes)
    results.append(gradients_of(token_statistics, whole, labels[:, 1:]))
    for stats, grad in results[1:]:
        assert torch.equal(grad, results[0][1])
        for name in (*FLOATS, "nucleus_size"):
            assert torch.equal(getattr(stats, name), getattr(results[0][0], name)), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(4, 10, 50), (2, 5, 7)])
def test_the_next_tokens_logits_have_the_gradient_of_a_copy(shape, dtype, token_statistics):
    """logits[:, :-1], whose rows no view can flatten although a new tensor's can; in place too."""
    wide, labels = random_case(shape[:2], shape[2], dtype)
    whole = wide[:, :-1].clone().requires_grad_()
    expected, slope = gradients_of(token_statistics, whole, labels[:, 1:])
    wide.requires_grad_()
    stats, gradient = gradients_of(lambda x, *a, **k: token_statistics(x[:, :-1], *a, **k), wide, labels[:, 1:])
    leaf = wide.detach().clone().requires_grad_()
    _, in_place = gradients_of(
        lambda x, *a, **k: token_statistics((x * 1.0)[:, :-1], *a, inplace_backward=True, **k), leaf, labels[:, 1:]
    )
    tolerance = 1e-12 if dtype == torch.float64 else 0  # all arithmetic is float64, in sums of other parts
    for found in (gradient, in_place):
        torch.testing.assert_close(found[:, :-1], slope, rtol=tolerance, atol=tolerance)
        assert found[:, -1].count_nonzero() == 0
    assert slope.count_nonzero() > 0
    for name in (*FLOATS, "nucleus_size"):
        got, want = getattr(stats, name), getattr(expected, name)
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


def gradients_of(function, logits, labels, **arguments):
    """The statistics, and the gradient of a sum of them with a different weight for each and for every token."""
    stats = function(logits, labels, top_p=0.8, **arguments)
    weight = torch.linspace(32, 96, labels.numel(), dtype=torch.float64).round().div(64).reshape(labels.shape)
    total = sum((i + 1) * (weight * getattr(stats, name)).sum() for i, name in enumerate(DIFFERENTIABLE))
    return stats.detach(), torch.autograd.grad(total, logits)[0]


def test_extreme_logits_neither_overflow_nor_underflow(token_statistics):
    logits = torch.tensor([[1e30, -1e30, 0.0], [3e38, 3e38, -3e38], [-1e-30, 0.0, -800.0]], requires_grad=True)
    stats = token_statistics(logits, torch.tensor([0, 0, 2]), top_p=1.0, temperature=torch.tensor([1.0, 1.0, 1e-3]))
    assert stats.entropy.tolist() == pytest.approx([0.0, math.log(2), math.log(2)], abs=1e-6)
    assert stats.log_prob.tolist() == pytest.approx([0.0, -math.log(2), -8e5 - math.log(2)], rel=1e-6)
    stats.log_prob.sum().backward()
    # Row 3: a label whose probability underflows is still pulled up with gradient 1 / temperature.
    torch.testing.assert_close(
        logits.grad, torch.tensor([[0.0, 0.0, 0.0], [0.5, -0.5, 0.0], [-500.0, -500.0, 1000.0]]), rtol=1e-6, atol=0
    )


def test_a_scaled_logit_that_overflows_has_gradient_0(token_statistics):
    logits = torch.tensor([[0.0, 0.0, -1e200]], dtype=torch.float64, requires_grad=True)
    stats = token_statistics(logits, torch.tensor([0]), top_p=1.0, temperature=1e-200)
    assert stats.entropy.item() == pytest.approx(math.log(2), abs=1e-12)
    (stats.entropy + stats.nucleus_entropy).sum().backward()
    assert logits.grad[0, 2].item() == 0.0
    assert logits.grad.isfinite().all()


def test_top_p_1_keeps_every_token_that_is_not_minus_infinity(token_statistics):
    logits = torch.tensor([[0.0, -50.0, -60.0, -INF, -2000.0]], dtype=torch.float64)
    assert token_statistics(logits, torch.tensor([0]), top_p=1.0).nucleus_size.item() == 4


# ---- edges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [(NAN, 1.0, 0.0), (INF, 1.0, 0.0), (INF, INF, NAN), (-INF, -INF, -INF), (1.0, NAN, -INF)]
)
@pytest.mark.parametrize("top_p", [0.8, 1.0])
def test_a_broken_row_is_nan_and_alone(bad, top_p, token_statistics):
    good = [[1.0, 0.5, -2.0], [0.0, 3.0, 1.0]]
    logits = torch.tensor([good[0], bad, good[1]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, 0, 1])
    stats = token_statistics(logits, labels, top_p=top_p)
    for name in FLOATS:
        assert getattr(stats, name).isnan().tolist() == [False, True, False], name
    assert stats.nucleus_size[1].item() == 0
    check_against_oracle(stats.map(lambda t: t[[0, 2]]), logits.detach()[[0, 2]], labels[[0, 2]], top_p)
    (stats.log_prob + stats.entropy).sum().backward()
    assert logits.grad[[0, 2]].isfinite().all()
    assert logits.grad[1][logits[1] != -INF].isnan().all()


def test_a_broken_row_without_incoming_gradient_sends_none(token_statistics):
    logits = torch.tensor([[NAN, 1.0], [0.0, 1.0]], requires_grad=True)
    stats = token_statistics(logits, torch.tensor([0, 0]), top_p=0.8)
    torch.where(torch.tensor([False, True]), stats.entropy, 0.0).sum().backward()
    p = 1 / (1 + math.e)
    slope = p * (1 - p)  # of the entropy of (p, 1 - p) in its logit gap of 1
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0], [slope, -slope]]))


@pytest.mark.parametrize("top_p", [0.8, 1.0])
def test_minus_infinity_has_no_probability_and_no_gradient(top_p, token_statistics):
    finite = torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    padded = torch.tensor([[-INF, 2.0, -INF, 1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    here = token_statistics(finite, torch.tensor([1]), top_p=top_p)
    there = token_statistics(padded, torch.tensor([3]), top_p=top_p)
    for name in (*FLOATS, "nucleus_size"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name), rtol=1e-14, atol=0)
    (here.log_prob + 2 * here.entropy + 3 * here.nucleus_entropy).sum().backward()
    (there.log_prob + 2 * there.entropy + 3 * there.nucleus_entropy).sum().backward()
    assert padded.grad[0, [0, 2]].tolist() == [0.0, 0.0]
    torch.testing.assert_close(padded.grad[:, [1, 3, 4]], finite.grad, rtol=0, atol=1e-15)


def test_label_without_probability(token_statistics):
    logits = torch.tensor([[0.0, -INF]], requires_grad=True)
    stats = token_statistics(logits, torch.tensor([1]), top_p=0.8)
    assert stats.log_prob.item() == -INF
    stats.log_prob.sum().backward()
    assert logits.grad.tolist() == [[-1.0, 0.0]]


def test_negative_label_has_log_prob_0_and_no_gradient(token_statistics):
    logits, _ = random_case((3,), 9)
    logits.requires_grad_()
    stats = token_statistics(logits, torch.tensor([-100, 4, -1]), top_p=0.8)
    assert stats.log_prob[[0, 2]].tolist() == [0.0, 0.0]
    (grad,) = torch.autograd.grad(stats.log_prob.sum(), logits, retain_graph=True)
    assert grad[[0, 2]].abs().max().item() == 0.0
    expected = -torch.softmax(logits.detach()[1], -1)
    expected[4] += 1
    torch.testing.assert_close(grad[1], expected)
    (grad,) = torch.autograd.grad(stats.entropy.sum(), logits)
    assert (grad.abs().amax(dim=-1) > 1e-3).all()  # the entropy of an unlabelled row still has its gradient


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_no_tokens(shape, token_statistics):
    logits = torch.zeros(*shape, 7, dtype=torch.bfloat16, requires_grad=True)
    stats = token_statistics(logits, torch.zeros(shape, dtype=torch.int64), top_p=0.8)
    assert stats.entropy.tolist() == torch.zeros(shape).tolist()
    stats.entropy.sum().backward()
    assert logits.grad.shape == (*shape, 7)


def test_one_token_vocabulary(token_statistics):
    logits = torch.tensor([[3.0]], requires_grad=True)
    stats = token_statistics(logits, torch.tensor([0]), top_p=0.8)
    assert (stats.log_prob.item(), stats.entropy.item(), stats.top2_log_prob.item()) == (0.0, 0.0, -INF)
    (stats.log_prob + stats.entropy + stats.nucleus_entropy).sum().backward()
    assert logits.grad.item() == 0.0


def test_map_and_detach(token_statistics):
    logits, labels = random_case((2, 3), 5)
    stats = token_statistics(logits.requires_grad_(), labels, top_p=0.8)
    assert [getattr(stats, name).requires_grad for name in FLOATS] == [True, True, True, False, False, False]
    assert not any(getattr(stats.detach(), name).requires_grad for name in FLOATS)
    flat = stats.map(lambda t: t.reshape(-1))
    assert flat.entropy.tolist() == stats.entropy.reshape(-1).tolist()
    assert flat.vocab_size == 5 and flat.top_p == stats.detach().top_p == 0.8
    assert isinstance(flat, TokenStatistics)


def test_an_output_changed_in_place_does_not_change_the_gradient(token_statistics):
    logits, labels = random_case((3,), 5)
    logits.requires_grad_()
    (expected,) = torch.autograd.grad(token_statistics(logits, labels, top_p=0.8).nucleus_entropy.sum(), logits)
    stats = token_statistics(logits, labels, top_p=0.8)
    stats.nucleus_mass.fill_(7.0)
    (grad,) = torch.autograd.grad(stats.nucleus_entropy.sum(), logits)
    assert torch.equal(grad, expected)


GOOD = {"logits": torch.zeros(2, 3), "labels": torch.zeros(2, dtype=torch.int64), "top_p": 0.8}


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (
            {"logits": torch.zeros(2, 3, dtype=torch.int64)},
            TypeError,
            "logits have dtype torch.int64: must be floating-point",
        ),
        ({"labels": torch.zeros(2)}, TypeError, "labels have dtype torch.float32: must be int64"),
        ({"logits": torch.zeros(3, 3)}, ValueError, r"logits \[3, 3\] and labels \[2\]: must be"),
        ({"logits": torch.zeros(())}, ValueError, r"logits \[\] and labels \[2\]: must be"),
        ({"logits": torch.zeros(2, 0)}, ValueError, "vocabulary must have at least one entry"),
        ({"labels": torch.tensor([0, 3])}, ValueError, "labels go up to 3: must be below the vocabulary size 3"),
        ({"top_p": 0.0}, ValueError, "top_p=0.0: must be in"),
        ({"top_p": 1.5}, ValueError, "top_p=1.5: must be in"),
        ({"top_p": NAN}, ValueError, "top_p=nan: must be in"),
        ({"temperature": 0.0}, ValueError, "temperature=0.0: must be positive"),
        ({"temperature": INF}, ValueError, "temperature=inf: must be positive"),
        ({"temperature": 1e-310}, ValueError, "temperature=1e-310: must be positive and finite"),
        (
            {"temperature": torch.tensor([1.0, 1e-310], dtype=torch.float64)},
            ValueError,
            "every value must be positive and finite",
        ),
        ({"temperature": torch.tensor([1.0, -1.0])}, ValueError, "every value must be positive"),
        ({"temperature": torch.tensor([1.0, NAN])}, ValueError, "every value must be positive"),
        ({"temperature": torch.tensor([1.0])}, ValueError, r"temperature \[1\]: must have the shape \[2\]"),
        ({"backend": "numpy"}, ValueError, "backend='numpy': must be auto, reference, torch, numba, triton"),
        (
            {"backend": "triton", "logits": torch.zeros(2, 3).double()},
            ValueError,
            "float64 logits need backend='torch'",
        ),
    ],
)
def test_errors(change, error, sentence, token_statistics):
    with pytest.raises(error, match=sentence):
        token_statistics(**{**GOOD, **change})


# ---- in place ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_in_place_backward_gives_the_same_gradient_and_takes_no_memory(dtype, token_statistics):
    leaf, labels = random_case((4, 3), 50, dtype)
    leaf.requires_grad_()
    _, expected = gradients_of(token_statistics, leaf, labels)
    logits = leaf * 1.0
    logits.register_hook(lambda grad: addresses.append(grad.data_ptr()))
    addresses = []
    stats = token_statistics(logits, labels, top_p=0.8, inplace_backward=True)
    weight = torch.linspace(32, 96, 12, dtype=torch.float64).round().div(64).reshape(4, 3)
    total = sum((i + 1) * (weight * getattr(stats, name)).sum() for i, name in enumerate(DIFFERENTIABLE))
    total.backward()
    assert addresses == [logits.data_ptr()]
    assert torch.equal(leaf.grad, expected)


def test_in_place_with_another_reader_of_the_logits_fails_instead_of_lying(token_statistics):
    leaf, labels = random_case((3,), 9)
    logits = leaf.requires_grad_() * 1.0
    other = logits.square().sum()  # saved the logits, and its backward runs after ours
    stats = token_statistics(logits, labels, top_p=0.8, inplace_backward=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (stats.entropy.sum() + other).backward()
    logits = leaf * 1.0
    stats = token_statistics(logits, labels, top_p=0.8, inplace_backward=True)
    stats.entropy.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stats.entropy.sum().backward()


def test_in_place_on_logits_that_must_survive_is_refused(token_statistics):
    leaf, labels = random_case((3,), 9)
    with pytest.raises(ValueError, match="inplace_backward: the logits are a leaf"):
        token_statistics(leaf.requires_grad_(), labels, top_p=0.8, inplace_backward=True)
    logits = leaf * 1.0
    logits.retain_grad()
    with pytest.raises(ValueError, match="inplace_backward: the logits retain their gradient"):
        token_statistics(logits, labels, top_p=0.8, inplace_backward=True)


def test_the_choice_of_a_backend_is_logged_once(caplog):
    paec_loss.statistics._log_choice.cache_clear()
    with caplog.at_level("INFO", logger="paec_loss.statistics"):
        for _ in range(3):
            paec_loss.token_statistics(torch.zeros(1, 2), torch.tensor([0]), top_p=0.8)
    assert [r.getMessage() for r in caplog.records] == [
        "token statistics of torch.float32 logits on cpu: backend numba"
    ]


# ---- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("top_p", [0.3, 0.8, 1.0])
def test_gradcheck(name, top_p, token_statistics):
    logits, labels = random_case((2, 2), 7, scale=1.5)
    temperature = torch.tensor([[0.7, 1.0], [1.3, 2.0]])

    def output(z):
        return getattr(token_statistics(z, labels, top_p=top_p, temperature=temperature), name)

    assert torch.autograd.gradcheck(output, logits.requires_grad_(), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("top_p", [0.1, 0.6, 0.8, 1.0])
def test_gradients_under_ties_share_the_edge_equally(top_p, token_statistics):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(3, (6, 11), generator=generator).double().requires_grad_()
    labels = torch.randint(11, (6,), generator=generator)
    stats = token_statistics(logits, labels, top_p=top_p, temperature=0.8)
    reference = [reference_row(logits[i], labels[i].item(), top_p, 0.8) for i in range(6)]
    for position, name in enumerate(DIFFERENTIABLE):
        want = torch.stack([row[position] for row in reference])
        got = getattr(stats, name)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-13)
        (grad,) = torch.autograd.grad(got.sum(), logits, retain_graph=True)
        (grad_want,) = torch.autograd.grad(want.sum(), logits, retain_graph=True)
        torch.testing.assert_close(grad, grad_want, rtol=0, atol=1e-13)


def test_gradient_on_a_tied_edge_by_hand(token_statistics):
    # (0.4, 0.2, 0.2, 0.2) at 0.7: two of the three tied tokens belong, so each has weight 2/3. M = 0.8, so the nucleus
    # is (1/2, 1/4, 1/4) with H = 1.0397, and the gradient is -w pi (log pi + H).
    logits = probabilities((0.4, 0.2, 0.2, 0.2)).requires_grad_()
    stats = token_statistics(logits, torch.tensor([0]), top_p=0.7)
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert stats.nucleus_size.item() == 3
    assert stats.nucleus_entropy.item() == pytest.approx(entropy, abs=1e-12)
    stats.nucleus_entropy.sum().backward()
    first = -0.5 * (math.log(0.5) + entropy)
    tied = -2 / 3 * 0.25 * (math.log(0.25) + entropy)
    assert logits.grad[0].tolist() == pytest.approx([first, tied, tied, tied], abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradient_of_lower_precision_logits_is_the_rounded_exact_one(dtype, token_statistics):
    logits, labels = random_case((3, 2), 200, dtype)
    upstream = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def gradient(z):
        stats = token_statistics(z.requires_grad_(), labels, top_p=0.8)
        total = sum((upstream[..., i] * getattr(stats, name)).sum() for i, name in enumerate(DIFFERENTIABLE))
        return torch.autograd.grad(total, z)[0]

    grad, exact = gradient(logits.clone()), gradient(logits.double())
    assert grad.dtype == dtype
    smallest = torch.finfo(dtype).smallest_normal
    torch.testing.assert_close(grad.double(), exact, rtol=torch.finfo(dtype).eps, atol=max(smallest, 1e-7))


# ---- invariants ---------------------------------------------------------------------------------------------------

LOGITS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.one_of(st.floats(-30, 30), st.sampled_from([-INF, 0.0, 1.0, 2.0])),
).filter(lambda a: bool(np.isfinite(a).any(axis=1).all()))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=LOGITS, top_p=st.floats(0.01, 1.0))
def test_invariants(array, top_p, token_statistics):
    logits = torch.from_numpy(array).requires_grad_()
    labels = torch.zeros(len(array), dtype=torch.int64)
    stats = token_statistics(logits, labels, top_p=top_p)
    size = stats.nucleus_size.double()
    assert (stats.entropy >= 0).all() and (stats.entropy <= math.log(array.shape[1]) + 1e-12).all()
    assert (stats.nucleus_entropy >= 0).all() and (stats.nucleus_entropy <= size.log() + 1e-12).all()
    assert (stats.top1_log_prob >= stats.top2_log_prob).all()
    # Minimal: the nucleus reaches top_p, and does not without its last token.
    reach = torch.softmax(logits.detach(), -1).sort(-1, descending=True).values.cumsum(-1)
    reach = torch.cat([torch.zeros(len(reach), 1, dtype=reach.dtype), reach], dim=1)
    assert (reach.gather(1, stats.nucleus_size[:, None]) >= top_p - 1e-12).all()
    assert (reach.gather(1, stats.nucleus_size[:, None] - 1) < top_p + 1e-12).all()
    # A constant added to all logits changes nothing, so every gradient sums to zero.
    (grad,) = torch.autograd.grad((stats.entropy + stats.nucleus_entropy).sum(), logits)
    assert grad.sum(-1).abs().max() < 1e-12


SHAPES = {
    "random": lambda g, shape: torch.randn(shape, generator=g) * 3,
    "flat": lambda g, shape: torch.randn(shape, generator=g) * 0.05,
    "levels": lambda g, shape: torch.randint(3, shape, generator=g).double(),
    "spread": lambda g, shape: torch.exp(12 * torch.randn(shape, generator=g)) * -1,
    "cluster": lambda g, shape: 1 + torch.randint(40, shape, generator=g) * 2.0**-20,
    "fork": lambda g, shape: torch.randn(shape, generator=g) + 9 * (torch.rand(shape, generator=g) > 0.98),
    "holes": lambda g, shape: torch.where(torch.rand(shape, generator=g) < 0.5, -INF, torch.randn(shape, generator=g)),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    vocab_size=st.integers(1, 400),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    top_p=st.one_of(st.floats(0.05, 0.9999), st.sampled_from([0.5, 0.8, 0.999, 1.0])),
    scale=st.sampled_from([0.01, 1.0, 8.0]),
    seed=st.integers(0, 2**20),
)
def test_every_backend_agrees_with_the_definition(token_statistics, shape, vocab_size, dtype, top_p, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (SHAPES[shape](generator, (5, vocab_size)) * scale).to(dtype)
    logits[:, 0] = logits[:, 0].clamp(min=-5)  # at least one token is possible
    labels = torch.randint(-1, vocab_size, (5,), generator=generator)
    temperature = 0.2 + 2 * torch.rand(5, generator=generator)
    arguments = dict(temperature=temperature, top_p=top_p)
    # At a knife edge the last bits of a sum decide, and two orders of summation may decide differently.
    reach = torch.softmax(logits.double() / temperature[:, None], -1).sort(-1, descending=True).values.cumsum(-1)
    assume(top_p == 1 or (reach - top_p).abs().min() > 1e-12)
    wide = logits.double().requires_grad_()  # the same numbers, so that nothing is rounded on the way out
    got, expected = (f(wide, labels, **arguments) for f in (token_statistics, DEFINITION))
    for name in FLOATS:
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=1e-11, atol=1e-13)
    upstream = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    gradients = []
    for stats in (got, expected):
        total = sum(
            (weight * getattr(stats, name)).sum() for weight, name in zip(upstream, DIFFERENTIABLE, strict=True)
        )
        gradients.append(torch.autograd.grad(total, wide)[0])
    assert got.nucleus_size.tolist() == expected.nucleus_size.tolist()
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


DEFINITION = functools.partial(paec_loss.token_statistics, backend="reference")


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_real_vocabulary(backend):
    """V = 151936, and 151937, which no block divides: few tokens, many tokens, ties, against the sorted definition."""
    generator = torch.Generator().manual_seed(0)
    function = functools.partial(paec_loss.token_statistics, backend=backend)
    for vocab_size in (151936, 151937):
        logits = torch.randn(6, vocab_size, generator=generator)
        logits[0] *= 4
        logits[1, ::5000] += 12
        logits[2] *= 0.01
        logits[3] = logits[3].mul(2).round()  # ten values
        logits[4, 7] = 40.0
        logits[5, -1] = logits[5, 0] = 14.0
        labels = torch.randint(vocab_size, (6,), generator=generator)
        for dtype, rtol in ((torch.float32, 1e-6), (torch.bfloat16, 0.004)):
            rows = logits.to(dtype).requires_grad_()
            (got, slope), (want, truth) = (gradients_of(f, rows, labels) for f in (function, DEFINITION))
            for name in FLOATS:
                torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-7, atol=0)
            assert got.nucleus_size.tolist() == want.nucleus_size.tolist()
            torch.testing.assert_close(slope, truth, rtol=rtol, atol=0)


def test_packed_rows_are_padded():
    """The statistics of packed tokens, and their gradient, as [B, R] with zeros at padding."""
    logits, labels = random_case((3, 4), 11)
    mask = torch.arange(4) < torch.tensor([4, 0, 2])[:, None]
    wide = logits.clone().requires_grad_()
    expected = paec_loss.token_statistics(wide, labels, top_p=0.8)
    packed = logits[mask].requires_grad_()
    found = paec_loss.token_statistics(packed, labels[mask], top_p=0.8).padded(mask)
    assert (found.vocab_size, found.top_p) == (11, 0.8)
    for name in (*FLOATS, "nucleus_size"):
        values = getattr(found, name)
        assert torch.equal(values[mask], getattr(expected, name)[mask]) and (values[~mask] == 0).all(), name
    weight = torch.arange(1.0, 13.0).reshape(3, 4) * mask
    sum((weight * getattr(found, name)).sum() for name in DIFFERENTIABLE).backward()
    sum((weight * getattr(expected, name)).sum() for name in DIFFERENTIABLE).backward()
    assert torch.equal(packed.grad, wide.grad[mask]) and packed.grad.abs().max() > 0


@pytest.mark.parametrize("fused", [False, True])
def test_compiled_code_calls_it_as_it_is(fused):
    """Both functions are a graph break: what is before and what is after them is compiled, and nothing inside."""
    hidden, labels = random_case((2, 3), 4, dtype=torch.float32)[0], torch.tensor([[0, 1, 2], [3, 4, 5]])
    weight = random_case((7,), 4, dtype=torch.float32)[0]

    def loss(hidden):
        if fused:
            stats = paec_loss.linear_token_statistics(2 * hidden, weight, labels, top_p=0.8)
        else:
            stats = paec_loss.token_statistics(2 * hidden @ weight.T, labels, top_p=0.8)
        return (stats.log_prob + stats.entropy * stats.nucleus_entropy).sum()

    results, graphs = [], []

    def as_it_is(graph, inputs):
        graphs.append(graph)
        return graph.forward

    for function in (loss, torch.compile(loss, backend=as_it_is)):
        leaf = hidden.clone().requires_grad_()
        value = function(leaf)
        value.backward()
        results.append((value.item(), leaf.grad))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])
    assert len(graphs) == 2


def test_rows_and_columns_of_a_dtensor_are_both_split(tmp_path):
    """The remedy that the error names works."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("dp", "tp"))
        logits, labels = random_case((2, 3), 11)
        split = DTensor.from_local(logits, mesh, [Shard(0), Shard(2)])
        with pytest.raises(TypeError) as caught:
            paec_loss.token_statistics(split, labels, top_p=0.8)
        remedy = "pass logits.to_local() and group=logits.device_mesh.get_group(1)"
        assert str(caught.value).endswith(f"for rows that are split, {remedy}")
        with pytest.raises(TypeError, match=r"pass logits.to_local\(\)$"):
            paec_loss.token_statistics(DTensor.from_local(logits, mesh, [Shard(0), Replicate()]), labels, top_p=0.8)
        found = paec_loss.token_statistics(split.to_local(), labels, top_p=0.8, group=split.device_mesh.get_group(1))
        expected = paec_loss.token_statistics(logits, labels, top_p=0.8, backend="torch")
        torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-12, atol=0)
    finally:
        torch.distributed.destroy_process_group()
