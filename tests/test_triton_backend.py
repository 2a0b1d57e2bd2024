"""The Triton kernels in Triton's interpreter against the reference, and compiled for sm_90; neither needs a GPU."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from paec_loss.backends import SCALARS, reference

triton = pytest.importorskip("triton")

INF, NAN = math.inf, math.nan
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SMALL = {"BLOCK": 128, "SEARCH_BLOCK": 256, "SELECT_GROUPS": 16, "CAPACITY": 1024, "BACKWARD_BLOCK": 128}

WIDE = {"BLOCK": 1024, "SEARCH_BLOCK": 2048, "BACKWARD_BLOCK": 2048}


def case(logits, top_p, labels=None, *, in_place=False, transposed=False, seed=0, **constants):
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


def build_cases():
    cases = {}
    for name, dtype in DTYPES.items():
        for top_p in (0.05, 0.5, 0.8, 0.95, 0.999, 1.0) if name == "fp32" else (0.8, 0.999, 1.0):
            cases[f"mixed {name} {top_p}"] = case(mixed_rows(300, dtype), top_p, in_place=top_p == 0.8)
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
    cases["no rows"] = case(torch.empty(0, 7), 0.8)
    extreme = torch.tensor([[3e38, -3e38, 1.0], [-3e38, -3e38, -3e38], [1e-40, 0.0, -1e-40], [60000.0, 59999.0, 0.0]])
    cases["extreme"] = case(extreme, 0.9)
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
    worker = Path(__file__).with_name("triton_worker.py")
    environment = {**os.environ, "PYTHONPATH": str(worker.parents[1])}
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
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


POINTERS = {"scalars": "fp64", "inv_temperature": "fp64", "upstream": "fp64", "labels": "i64", "size": "i64"}


def compile_for_hopper(kernel, dtype, constants, num_warps):
    """PTX of a kernel for sm_90, with the arguments specialised as a launch on contiguous logits does."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: "i32" for name in kernel.arg_names}
    types |= {name: f"*{POINTERS[name]}" for name in POINTERS if name in types}
    types |= {name: f"*{dtype}" for name in ("logits", "out") if name in types}
    types |= {"listed": "*i32"} if "listed" in types else {}
    constants = constants | {name: 1 for name in ("stride_v", "out_stride_v") if name in types}
    types |= dict.fromkeys(constants, "constexpr")
    aligned = {"vocab_size", "stride_t", "out_stride_t"} - constants.keys()
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if types[name][0] == "*" or name in aligned
    }
    source = ASTSource(kernel, types, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps}).asm["ptx"]


@pytest.mark.parametrize("top_p", [0.8, 1.0])
@pytest.mark.parametrize("vocab_size", [{}, {"vocab_size": 1}], ids=["any vocabulary", "one token"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_compile_for_hopper(dtype, vocab_size, top_p, tmp_path):
    from paec_loss.backends import triton_backend as backend

    group = backend.GROUP_BYTES // DTYPES[dtype].itemsize
    search = {"TOP_P": top_p, "GROUPS": backend.SEARCH_BLOCK // group, "GROUP": group}
    forward = search | {
        "GROUPS": backend.BLOCK // group,
        "CAPACITY": backend.CAPACITY,
        "PLACES": backend.CAPACITY + backend.BLOCK // group + backend.RESERVE,
        "LISTED_GROUPS": backend.SELECT_GROUPS,
        "STAGES": backend.STAGES,
    }
    kernels = [(backend._forward_kernel, forward, backend.WARPS)]
    if top_p < 1:
        kernels.append((backend._search_kernel, search, backend.SEARCH_WARPS))
        kernels.append((backend._backward_kernel, {"BLOCK": backend.BACKWARD_BLOCK}, backend.BACKWARD_WARPS))
    for kernel, constants, warps in kernels:
        ptx = compile_for_hopper(kernel, dtype, constants | vocab_size, warps)
        assert f".entry {kernel.__name__}(" in ptx
        if kernel is backend._forward_kernel:
            assert "max.NaN.f32" in ptx  # the clamp of s lets NaN through; the interpreter's maximum always does
        if dtype == "bf16" and not vocab_size and top_p < 1:
            assert "ld.global.v4.b32" in ptx or "cp.async.cg.shared.global" in ptx  # 16 bytes a load
            spilled = re.findall(r"(\d+) bytes spill", ptxas_report(ptx, tmp_path / f"{kernel.__name__}.ptx"))
            assert spilled == ["0", "0"], kernel.__name__


def ptxas_report(ptx: str, path: Path) -> str:
    path.write_text(ptx)
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    command = [ptxas, "-v", "-arch=sm_90a", path, "-o", path.with_suffix(".cubin")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr
