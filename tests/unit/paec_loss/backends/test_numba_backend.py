"""What is particular to the numba backend: its exponential, threads, forks, and how it is compiled and chosen."""

import functools
import os
import subprocess
import sys
import traceback

import numba
import pytest
import torch

import paec_loss
from paec_loss.backends import numba_backend
from paec_loss.statistics import _fastest, _installed, backend_name

token_statistics = functools.partial(paec_loss.token_statistics, top_p=0.9, backend="numba")


def rows(tokens=12, vocab_size=700, seed=0):
    """Logits of every kind of nucleus, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, vocab_size, generator=generator) * torch.linspace(0.01, 8, tokens)[:, None]
    return logits, torch.randint(vocab_size, (tokens,), generator=generator)


def values_and_gradient(logits, labels):
    leaf = logits.clone().requires_grad_()
    stats = token_statistics(leaf, labels)
    weight = torch.linspace(1, 2, labels.numel())
    total = (weight * (stats.log_prob + 2 * stats.entropy + 3 * stats.nucleus_entropy)).sum()
    return stats.detach(), torch.autograd.grad(total, leaf)[0]


def same(here, there):
    tensors = [(getattr(here[0], f), getattr(there[0], f)) for f in ("log_prob", "entropy", "nucleus_entropy")]
    return all(torch.equal(a, b) for a, b in [*tensors, (here[1], there[1])])


def threads(monkeypatch, count):
    """Let the backend use `count` threads, each for a piece of one row."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    monkeypatch.setattr(numba_backend, "_PIECE", 1)


def test_the_exponential_has_an_error_below_1e_15_and_ends_in_zero():
    x = -torch.cat([torch.linspace(0, 1, 50_001), torch.linspace(0, 1022, 50_001)]).double()
    got = torch.tensor([numba_backend._exp2(v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(got, torch.exp2(x), rtol=1e-15, atol=0)
    assert numba_backend._exp2(0.0) == 1.0
    assert numba_backend._exp2(-1.0) == 0.5
    assert [numba_backend._exp2(v) for v in (-1022.75, -1023.0)] == [0.0, 0.0]


@pytest.mark.parametrize("count", [2, 5, 40])
def test_threads_change_no_bit(count, monkeypatch):
    logits, labels = rows()
    alone = values_and_gradient(logits, labels)
    threads(monkeypatch, count)
    assert same(values_and_gradient(logits, labels), alone)


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch):
    threads(monkeypatch, 2)

    def work(first, stop):
        if first == 3:
            raise ValueError(f"rows {first} to {stop}")

    with pytest.raises(ValueError, match="rows 3 to 4"):
        numba_backend._spread(work, 5, 7)


def test_a_forked_process_computes_the_same(monkeypatch):
    threads(monkeypatch, 3)
    logits, labels = rows()
    before = values_and_gradient(logits, labels)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if same(values_and_gradient(logits, labels), before) else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert same(values_and_gradient(logits, labels), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_columns_that_are_not_adjacent(dtype, monkeypatch):
    monkeypatch.setattr(numba_backend, "_COPY", 2000)  # copies of two rows at a time
    logits, labels = rows()
    logits = logits.to(dtype)
    transposed = logits.t().contiguous().t()
    assert transposed.stride() == (1, 12)
    assert same(values_and_gradient(transposed, labels), values_and_gradient(logits, labels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nan_upstream_is_nan_except_where_there_is_no_probability(dtype):
    leaf = torch.tensor([[0.0, 1.0, -torch.inf]], dtype=dtype, requires_grad=True)
    stats = token_statistics(leaf, torch.tensor([-100]))
    (gradient,) = torch.autograd.grad(stats.entropy, leaf, torch.tensor([torch.nan]))
    assert gradient.isnan().tolist() == [[True, True, False]]
    assert gradient[0, 2].item() == 0.0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_nan_of_either_sign_breaks_the_row_wherever_it_is(sign, dtype):
    for place in range(0, 300, 23):
        logits = torch.zeros(1, 300, dtype=dtype)
        logits[0, place] = torch.copysign(torch.tensor(torch.nan), torch.tensor(float(sign)))
        assert not token_statistics(logits, torch.tensor([0])).sound.item()


# ---- compilation and choice ------------------------------------------------------------------------------------------


def python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)


def test_numba_is_imported_at_the_first_use_only():
    done = python("import sys, paec_loss, paec_loss.statistics; assert 'numba' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_another_process_finds_the_machine_code_on_disk():
    token_statistics(*rows())  # compiles and saves it, unless an earlier run did
    done = python(
        "import torch, paec_loss\n"
        "from paec_loss.backends.numba_backend import _forward_rows as kernel\n"
        "logits = torch.zeros(1, 9)\n"
        "paec_loss.token_statistics(logits, torch.tensor([0]), top_p=0.9, backend='numba')\n"
        "print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))\n"
    )
    assert done.stdout.split() == ["1", "0"], done.stderr


def test_without_a_folder_to_write_the_kernels_are_compiled_in_the_process(monkeypatch, caplog):
    compiled = []

    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: compiled.append((function.__name__, options["nogil"])) or function

    monkeypatch.setattr(numba, "njit", njit)

    def double(x):
        return 2 * x

    assert numba_backend._kernel()(double)(3) == 6
    assert compiled == [("double", True)]
    assert [record.getMessage() for record in caplog.records] == [
        "double is compiled in every process: no folder to keep it in; set NUMBA_CACHE_DIR"
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_auto_takes_numba_on_a_cpu_and_torch_without_it(dtype, monkeypatch):
    logits = torch.zeros(1, 2, dtype=dtype)
    assert _fastest(logits, None) == "numba"
    assert _fastest(logits, object()) == "torch"  # a vocabulary split over a group
    monkeypatch.setattr(paec_loss.statistics, "_installed", lambda module: module == "triton")
    assert _fastest(logits, None) == "torch"
    assert _fastest(torch.zeros(1, 2, device="meta"), None) == "torch"


def test_numba_is_refused_where_it_cannot_run(monkeypatch):
    with pytest.raises(ValueError, match="backend='numba': the logits are on meta"):
        backend_name("numba", torch.zeros(1, 2, device="meta"), None)
    with pytest.raises(ValueError, match="a vocabulary split over a group needs backend='torch'"):
        backend_name("numba", torch.zeros(1, 2), object())
    monkeypatch.setattr(paec_loss.statistics, "_installed", lambda module: False)
    with pytest.raises(ValueError, match="backend='numba': numba is not installed; install it"):
        backend_name("numba", torch.zeros(1, 2), None)


def test_a_module_that_does_not_exist_is_not_installed():
    assert _installed("torch")
    assert not _installed("no_such_module")
