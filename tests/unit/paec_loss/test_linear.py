"""`linear_token_statistics` against `token_statistics` of the whole logits, and what it allocates."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from paec_loss import linear_token_statistics, token_statistics

FLOATS = ("log_prob", "entropy", "nucleus_entropy", "nucleus_mass", "top1_log_prob", "top2_log_prob")
T, D, V = 37, 16, 300


def arguments(dtype=torch.float64, bias=True, shape=(T,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    random = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    hidden = random(*shape, D).to(dtype).requires_grad_()
    weight = (random(V, D) * 0.8).to(dtype).requires_grad_()
    offset = random(V).to(dtype).requires_grad_() if bias else None
    labels = torch.randint(-1, V, shape, generator=generator)
    temperature = 0.5 + torch.rand(shape, generator=generator)
    return hidden, weight, offset, labels, temperature


def objective(statistics):
    """A sum of all that is differentiable, each token with a weight of its own; the first third gets none."""
    tokens = statistics.log_prob.numel()
    weights = torch.linspace(32, 96, tokens, dtype=torch.float64).round().div(64)
    weights[: tokens // 3] = 0
    total = statistics.log_prob + 2 * statistics.entropy + 3 * statistics.nucleus_entropy
    return (weights.reshape(total.shape) * total).sum()


def whole(hidden, weight, bias, labels, temperature, **options):
    return token_statistics(F.linear(hidden, weight, bias), labels, top_p=0.8, temperature=temperature, **options)


def fused(hidden, weight, bias, labels, temperature, **options):
    return linear_token_statistics(hidden, weight, labels, top_p=0.8, temperature=temperature, bias=bias, **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 5, 36, 37, 1000])
@pytest.mark.parametrize("backend", ["reference", "torch", "numba"])
def test_it_is_the_statistics_of_the_whole_logits(backend, chunk_size, bias):
    hidden, weight, offset, labels, temperature = arguments(bias=bias)
    got = fused(hidden, weight, offset, labels, temperature, backend=backend, chunk_size=chunk_size)
    want = whole(hidden, weight, offset, labels, temperature, backend="reference")
    assert torch.equal(got.nucleus_size, want.nucleus_size) and got.vocab_size == V
    for name in FLOATS:
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-12, atol=1e-14)
    leaves = [leaf for leaf in (hidden, weight, offset) if leaf is not None]
    slopes = (torch.autograd.grad(objective(statistics), leaves) for statistics in (got, want))
    for slope, truth in zip(*slopes, strict=True):
        torch.testing.assert_close(slope, truth, rtol=1e-11, atol=1e-12)


def test_leading_dimensions_and_no_rows():
    hidden, weight, offset, labels, temperature = arguments(shape=(2, 3))
    got = fused(hidden, weight, offset, labels, temperature, chunk_size=4)
    want = whole(hidden, weight, offset, labels, temperature)
    torch.testing.assert_close(got.entropy, want.entropy, rtol=1e-12, atol=0)
    assert got.entropy.shape == (2, 3)
    nothing = linear_token_statistics(hidden[:0], weight, labels[:0], top_p=0.8)
    assert nothing.entropy.shape == (0, 3)
    nothing.entropy.sum().backward()
    assert weight.grad.abs().max().item() == 0.0 and hidden.grad.abs().max().item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_lower_precision_it_is_no_worse_than_whole_logits_in_the_same_dtype(dtype):
    """Elementwise |truth - ours| <= |truth - whole| + tolerance, truth in float64 on the same numbers."""
    exact = arguments(dtype)
    truth = [value.detach().double().requires_grad_() for value in exact[:3]]
    slopes = {}
    for name, function, leaves in (
        ("truth", whole, truth),
        ("whole", whole, exact[:3]),
        ("ours", functools.partial(fused, chunk_size=8), exact[:3]),
    ):
        slopes[name] = [s.double() for s in torch.autograd.grad(objective(function(*leaves, *exact[3:])), leaves)]
    for want, naive, ours in zip(slopes["truth"], slopes["whole"], slopes["ours"], strict=True):
        tolerance = 8 * torch.finfo(dtype).eps * want.abs().max()  # sums of few products in another order
        assert ((want - ours).abs() <= (want - naive).abs() + tolerance).all()


def test_under_autocast_the_product_is_in_its_dtype():
    hidden, weight, offset, labels, temperature = arguments(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = fused(hidden, weight, offset, labels, temperature)
        want = whole(hidden, weight, offset, labels, temperature)
    torch.testing.assert_close(got.entropy, want.entropy, rtol=1e-6, atol=0)
    ours, theirs = (torch.autograd.grad(objective(s), (hidden, weight, offset)) for s in (got, want))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02 * b.abs().max().item())


class Largest(TorchDispatchMode):
    """The largest number of elements that any operation has returned."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *(t.numel() for t in tensors)])
        return result


@pytest.mark.parametrize("chunk_size", [4, 10])
def test_the_logits_never_exist(chunk_size):
    hidden, weight, offset, labels, temperature = arguments(torch.float32)
    with Largest() as largest:
        objective(fused(hidden, weight, offset, labels, temperature, chunk_size=chunk_size)).backward()
    # The torch backend's own buffers are a few times a chunk.
    assert largest.numel <= max(3 * chunk_size * (V + 1), V * D) < T * V
    with Largest() as largest:
        objective(whole(hidden, weight, offset, labels, temperature)).backward()
    assert largest.numel >= T * V  # the probe sees the logits where they exist


def test_rows_without_gradient_are_not_multiplied_again():
    hidden, weight, offset, labels, temperature = arguments()
    with torch.no_grad():
        hidden[0] = float("nan")  # a prompt's row; `objective` gives the first third no weight
    statistics = fused(hidden, weight, offset, labels, temperature)
    assert statistics.sound.tolist() == [False] + [True] * (T - 1)
    objective(statistics.map(lambda t: torch.where(statistics.sound, t, 0))).backward()
    assert hidden.grad[: T // 3].abs().max().item() == 0.0
    assert weight.grad.isfinite().all() and weight.grad.abs().max() > 0


GOOD = {
    "hidden": torch.zeros(2, 3),
    "weight": torch.zeros(5, 3),
    "labels": torch.zeros(2, dtype=torch.int64),
    "top_p": 0.8,
}


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"hidden": torch.zeros(2, 4)}, ValueError, r"hidden \[2, 4\] and weight \[5, 3\]: must be"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, r"hidden \[2, 3\] and labels \[3\]: must be"),
        ({"weight": torch.zeros(5, 3).double()}, TypeError, "weight torch.float64: they and bias must have the same"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias \[4\]: must be \[V\] = \[5\]"),
        ({"labels": torch.tensor([0, 5])}, ValueError, "labels go up to 5: must be below the vocabulary size 5"),
        ({"weight": torch.zeros(0, 3)}, ValueError, "vocabulary must have at least one entry"),
        ({"chunk_size": 0}, ValueError, "chunk_size=0: must be an integer >= 1"),
        ({"top_p": 0.0}, ValueError, "top_p=0.0: must be in"),
        ({"backend": "numpy"}, ValueError, "backend='numpy': must be auto"),
    ],
)
def test_errors(change, error, sentence):
    with pytest.raises(error, match=sentence):
        linear_token_statistics(**{**GOOD, **change})
