"""The Triton kernels in Triton's interpreter against the reference, and compiled for sm_90; neither needs a GPU."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import kernel_resources
from paec_loss.backends import SCALARS, reference

triton = pytest.importorskip("triton")

pytestmark = pytest.mark.timeout(1800)  # the interpreter and the compiler take minutes where others use the machine

INF, NAN = math.inf, math.nan
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SMALL = {"GROUPS": 16, "LOOSE_GROUPS": 32, "SEARCH_GROUPS": 64, "LOOSE_SEARCH_GROUPS": 32, "SELECT_GROUPS": 16}
SMALL |= {"CAPACITY": 1024, "RESERVE": 64, "FOUND": 16, "PIVOTS": 4, "LOOSE_PIVOTS": 3, "ROUNDS": 2}
SMALL |= {"BACKWARD_BLOCK": 128}
WIDE = {"GROUPS": 128, "LOOSE_GROUPS": 128, "SEARCH_GROUPS": 512, "LOOSE_SEARCH_GROUPS": 512, "BACKWARD_BLOCK": 2048}
WIDE |= {"FOUND": 2048, "PIVOTS": 16, "LOOSE_PIVOTS": 8, "ROUNDS": 3}


def case(logits, top_p, labels=None, *, in_place=False, transposed=False, count_reads=False, seed=0, **constants):
    """Input of one call; a temperature and upstream gradients for every row, labels drawn unless given."""
    generator = torch.Generator().manual_seed(seed)
    tokens, vocab_size = logits.shape
    if labels is None:
        labels = torch.randint(0, vocab_size, (tokens,), generator=generator)
    upstream = torch.randn(3, tokens, generator=generator, dtype=torch.float64)
    upstream[0, labels < 0] = 0
    return {
        "logits": logits,
        "labels": labels,
        "inv_temperature": 1 / (0.6 + torch.rand(tokens, generator=generator, dtype=torch.float64)),
        "upstream": upstream,
        "top_p": top_p,
        "in_place": in_place,
        "transposed": transposed,
        "count_reads": count_reads,
        "constants": {**SMALL, **constants},
    }


def mixed_rows(vocab_size, dtype, seed=0):
    """Peaked, flat, in between, uniform, one-hot, a fork, heavy ties, some and most logits -inf: [9, V]."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(9, vocab_size, generator=generator) * torch.tensor([8, 0.1, 2, 0, 0, 1, 1, 2, 2.0])[:, None]
    rows[4] = -27.3
    rows[4, vocab_size // 2] = 1.2
    rows[5, [vocab_size // 3, vocab_size - 1]] = 14.0
    rows[6] = rows[6].round()
    rows[7, : vocab_size // 3] = -INF
    rows[8, 2:] = -INF
    return rows.to(dtype)


def flat_rows(dtype):
    """What the search is slow on, V = 4000: normal, normal and high (16-bit ties by the thousand), uniform, all equal
    but one, two values, a high one above a bulk, a tail of Zipf, a grid of ties, clusters finer than any pivot."""
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(9, 4000, generator=generator)
    rows[1] += 20
    rows[2] = 6 * torch.rand(4000, generator=generator)
    rows[3] = 1.0
    rows[3, 7] = 3.0
    rows[4] = rows[4].sign()
    rows[5, 3500] = 9.0
    rows[6] = -1.2 * torch.arange(1.0, 4001).log()
    rows[7] = (4 * rows[7]).round() / 4
    rows[8] = rows[8].round() + 1e-6 * rows[8]
    return rows.to(dtype)


def build_cases():
    cases = {}
    for name, dtype in DTYPES.items():
        for top_p in (0.05, 0.5, 0.8, 0.95, 0.999, 1.0) if name == "fp32" else (0.8, 0.999, 1.0):
            cases[f"mixed {name} {top_p}"] = case(mixed_rows(300, dtype), top_p, in_place=top_p == 0.8)
        cases[f"whole groups {name}"] = case(mixed_rows(304, dtype), 0.9, CAPACITY=4)
        cases[f"strided {name}"] = case(mixed_rows(77, dtype), 0.8, transposed=True)
        cases[f"overflow {name}"] = case(mixed_rows(300, dtype), 0.9, CAPACITY=4)
        cases[f"overflow all {name}"] = case(mixed_rows(300, dtype), 1.0, CAPACITY=4)
    # The maximum twice in one tile, or in two, and outside the list: top-2 must see both.
    tops = torch.arange(1000.0).repeat(3, 1) / 300
    tops[0, [850, 860]] = 5.0
    tops[1, [650, 999]] = 5.0
    tops[2, 670] = 5.0
    for top_p in (0.6, 1.0):
        cases[f"unlisted maximum {top_p}"] = case(tops, top_p, CAPACITY=2, RESERVE=0)
    late = torch.full((2, 1000), -25.0)  # a full list has places left for a late maximum, which keeps full precision
    late[0, 900], late[1, [500, 901]] = 3.0, torch.tensor([-1.0, 3.0])
    cases["late one-hot"] = case(late, 0.8, torch.tensor([7, -100]), CAPACITY=2, RESERVE=4)
    # The list reaches top_p, but two logits of the nucleus came when it was full.
    late = torch.full((1, 1000), -2.0)
    late[0, :8], late[0, 500], late[0, [700, 900]] = 4.0, 5.0, 4.9
    cases["nucleus partly unlisted"] = case(late, 0.5, torch.tensor([0]), CAPACITY=2, RESERVE=4)
    cases["nucleus partly unlisted"]["inv_temperature"].fill_(1.0)
    wide = mixed_rows(5000, torch.float32)[[0, 4, 8]]
    cases["vocabulary 5000 fp32"] = case(wide, 0.8, **WIDE)
    cases["vocabulary 5000 bf16"] = case(wide.bfloat16(), 0.8, **WIDE)
    tail = torch.full((2, 5000), -13.0) + torch.arange(5000) % 7 / 4  # 11 nats below the rest, yet in the nucleus
    tail[:, 4321] = 0.0
    cases["too little mass on the list"] = case(tail, 0.99, torch.tensor([4321, 4321]), **WIDE)
    cases["too little mass on the list"]["inv_temperature"].fill_(1.0)
    cases["negative labels"] = case(mixed_rows(300, torch.bfloat16), 0.8, torch.full((9,), -100))
    for vocab_size in (1, 7):
        cases[f"vocabulary {vocab_size}"] = case(mixed_rows(max(vocab_size, 4), torch.float32)[:, :vocab_size], 0.8)
        cases[f"vocabulary {vocab_size} all"] = case(mixed_rows(max(vocab_size, 4), torch.float32)[:, :vocab_size], 1.0)
    for name in ("bf16", "fp32"):  # the pivots as they are shipped, and a list as short for V as it is for 152 k
        shipped = {**WIDE, "GROUPS": 64, "CAPACITY": 128, "SEARCH_GROUPS": 256, "FOUND": 64}
        cases[f"reads {name}"] = case(flat_rows(DTYPES[name]), 0.8, count_reads=True, **shipped)
        cases[f"reads {name}"]["inv_temperature"].fill_(1.0)
    cases["no rows"] = case(torch.empty(0, 7), 0.8)
    extreme = torch.tensor([[3e38, -3e38, 1.0], [-3e38, -3e38, -3e38], [1e-40, 0.0, -1e-40], [60000.0, 59999.0, 0.0]])
    cases["extreme"] = case(extreme, 0.9)
    large = torch.arange(50.0).remainder(3).repeat(4, 1)  # ties, where a nat is less than rounding takes, and denormals
    large[0], large[1] = 3e38, torch.finfo(torch.float32).min
    large[2], large[3] = 1e8 + 8 * large[2], 1e-40 * large[3]
    cases["extreme, searched"] = case(large, 0.9, CAPACITY=2, RESERVE=4)
    broken = mixed_rows(300, torch.float32)[:8]
    broken[1, 200], broken[3, 7], broken[5], broken[6, [0, 299]] = NAN, INF, -INF, torch.tensor([NAN, INF])
    broken[1, 3] = -INF
    for top_p in (0.8, 1.0):
        cases[f"broken {top_p}"] = case(broken, top_p)
    cases["broken 0.8"]["upstream"][:, 3] = 0
    cases["broken 0.8"]["upstream"][:, 4] = 0
    return cases


CASES = build_cases()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    work = tmp_path_factory.mktemp("triton")
    torch.save(CASES, work / "cases.pt")
    worker = Path(__file__).parents[2] / "helpers" / "triton_worker.py"
    environment = {**os.environ, "PYTHONPATH": str(worker.parents[2])}
    subprocess.run([sys.executable, worker, work / "cases.pt", work / "results.pt"], env=environment, check=True)
    return torch.load(work / "results.pt")


@pytest.mark.parametrize("name", CASES)
def test_kernels_agree_with_the_reference(name, results):
    given, result = CASES[name], results[name]
    arguments = (given["logits"], given["labels"], given["inv_temperature"])
    scalars, size = reference.forward(*arguments, given["top_p"])
    expected = scalars.clone()
    if given["top_p"] >= 1:  # no search: every token but those at -inf is above the threshold
        expected[8] = torch.where(scalars[8].isnan(), NAN, -INF)
        expected[9] = torch.where(scalars[8].isnan(), NAN, 0.0)
    assert torch.equal(result["size"], size)
    for row, value, wanted in zip(SCALARS, result["scalars"], expected, strict=True):
        assert torch.allclose(value, wanted, rtol=1e-7, atol=1e-15, equal_nan=True), (row, value, wanted)
    assert torch.equal(result["scalars"][8].nan_to_num(), expected[8].nan_to_num())  # a stored logit, bit for bit

    gradient = reference.row_gradient(given["logits"].double(), *arguments[1:], scalars, given["upstream"])
    # The interpreter cuts what does not fit into bfloat16 instead of rounding: one unit in the last place, not half.
    dtype = given["logits"].dtype
    rtol = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    atol = 1e-7 if dtype == torch.float16 else 1e-9
    torch.testing.assert_close(result["gradient"].double(), gradient, rtol=rtol, atol=atol, equal_nan=True)


def test_cases_reach_the_search_of_whole_rows(results):
    """Rows whose list overflowed or fell short: far more than CAPACITY groups of 16 bytes in the nucleus."""
    assert results["too little mass on the list"]["size"].min() > 100
    assert results["overflow fp32"]["size"][1] > 4 * 4
    assert results["nucleus partly unlisted"]["size"].item() == 5  # 5.0, 4.9 twice, two of the eight 4.0
    assert results["nucleus partly unlisted"]["scalars"][9].item() == 2 / 8


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_search_of_flat_rows_reads_them_four_times(dtype, results):
    """Counted in the interpreter, label and all: forward, at most four reads of the search, backward."""
    reads = results[f"reads {dtype}"]["reads"]
    lists = 0.5  # the forward kernel reads what it listed anew, from the cache
    assert reads.shape == (9,)
    assert (reads[:8] <= 1 + 4 + 1 + lists).all(), reads
    assert reads[0] <= 1 + 3 + 1 + lists, reads
    assert 1 + 4 + 1 < reads[8] <= 1 + 7 + 1 + lists, reads  # thousands of logits within 1e-5


def test_broken_rows_and_rows_without_gradient(results):
    result = results["broken 0.8"]
    broken = torch.tensor([False, True, False, True, False, True, True, False])
    assert torch.equal(result["scalars"].isnan(), broken.expand(10, -1))
    assert result["size"][broken].tolist() == [0, 0, 0, 0]
    assert result["gradient"][[3, 4]].abs().max() == 0  # +inf in row 3 does not leak
    assert result["gradient"][1, 3] == 0 and result["gradient"][1, 4].isnan()


def test_literal_values(results):
    """A uniform row of 300 at top_p = 0.5: the nucleus is 150 of them, each with weight 1/2."""
    result = results["mixed fp32 0.5"]
    scalars = result["scalars"][:, 3]
    assert result["size"][3] == 150
    assert scalars[1].item() == pytest.approx(math.log(300), rel=1e-14)
    assert scalars[2].item() == pytest.approx(math.log(150), rel=1e-14)
    assert scalars[3].item() == 0.5 and scalars[9].item() == 0.5


@pytest.mark.parametrize("function", ["forward", "backward"])
def test_float64_is_refused(function):
    from paec_loss.backends import triton_backend

    row, label = torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    arguments = {"forward": (row, label, row[:, 0], 0.8), "backward": (row, label, row[:, 0], row, row, row)}
    with pytest.raises(TypeError, match="float64"):
        getattr(triton_backend, function)(*arguments[function])


def test_package_imports_without_triton():
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "import paec_loss\n"
        "try:\n    import paec_loss.backends.triton_backend\n"
        "except ImportError:\n    print('refused')"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


@pytest.mark.skipif(kernel_resources.find_ptxas() is None, reason="no ptxas: pip install triton brings it")
@pytest.mark.parametrize(("dtype", "layout"), [("bf16", "whole"), ("fp32", "whole"), ("bf16", "any")])
def test_no_kernel_spills_on_hopper(dtype, layout):
    """Of what the backend launches; `python -m benchmarks.kernel_resources` compiles the rest as well."""
    for configuration in kernel_resources.configurations([dtype], [layout]):
        found = kernel_resources.resources(configuration, kernel_resources.find_ptxas())
        assert found.spilled == 0, configuration
        assert found.shared <= 48 * 1024, configuration
        assert f".entry {configuration.kernel}(" in found.ptx
        if configuration.kernel == "_forward_kernel":
            assert "max.NaN.f32" in found.ptx  # the clamp of s lets NaN through; the interpreter's maximum always does
        if configuration.kernel == "_backward_kernel":
            # In place: the label's logit is read before any warp gets to write.
            assert found.ptx.index("bar.sync") < found.ptx.rindex("st.global")
        if layout == "whole":
            assert "ld.global.v4.b32" in found.ptx or "cp.async.cg.shared.global" in found.ptx  # 16 bytes a load


@pytest.mark.parametrize(
    ("vocab_size", "make", "whole"),
    [
        (4096, lambda z: z, True),
        (4096, lambda z: z.view(4, 2, -1)[:, 0], True),
        (259, lambda z: z, False),
        (4104, lambda z: z, False),
        (4096, lambda z: z[:, 16:], True),
        (4096, lambda z: z[:, 4:-12], False),
        (4096, lambda z: z[:, ::2], False),
        (4096, lambda z: z.t()[:8], False),
    ],
    ids=[
        "whole",
        "every other row",
        "small",
        "indivisible",
        "aligned slice",
        "slice",
        "every other logit",
        "transposed",
    ],
)
def test_rows_of_whole_groups(vocab_size, make, whole):
    from paec_loss.backends import triton_backend

    logits = make(torch.zeros(8, vocab_size, dtype=torch.bfloat16))
    assert triton_backend.whole_groups(logits) == whole
    groups = {kernel.__name__: constants["GROUPS"] for kernel, constants, _ in forward_launches(logits)}
    expected = (128, 512) if whole else (32, 64)
    assert (groups["_forward_kernel"], groups["_search_kernel"]) == expected


def forward_launches(logits):
    from paec_loss.backends import triton_backend

    return triton_backend.forward_launches(logits.dtype, 0.8, whole=triton_backend.whole_groups(logits))
