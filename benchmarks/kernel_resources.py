"""Registers, spills and shared memory of the Triton kernels on Hopper: `python -m benchmarks.kernel_resources`

Needs no GPU: compiles every kernel that the backend launches for sm_90, as a launch on such logits would, and assembles
it with ptxas (the one in the triton wheel, else the one on PATH). `V` says by what Triton specialises: `whole` stands
for vocabularies and row strides divisible by 16 (Qwen, Llama, ...), `any` for all others, `strided` for logits whose
neighbours do not lie side by side, such as a transposed tensor. About 3 minutes on one core; `--dtypes bf16` a third.

Exits 1 if a kernel spills, 2 without Triton or ptxas.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from data_prep.files import atomic_write

ARCHITECTURE, CAPABILITY = "sm_90a", 90
DTYPES = ("bf16", "fp16", "fp32")
LAYOUTS = ("whole", "any", "strided")
TOP_P = (0.8, 1.0)
_POINTERS = {"scalars": "fp64", "inv_temperature": "fp64", "upstream": "fp64", "labels": "i64", "size": "i64"}
_POINTERS |= {"listed": "i32"}


@dataclass(frozen=True)
class Configuration:
    """One compilation: a kernel of the backend for logits of one dtype and layout."""

    kernel: str
    dtype: str
    layout: str
    top_p: float | None = None
    """Of the forward kernels, which have it as a compile-time argument."""


@dataclass(frozen=True)
class Resources:
    """What one configuration takes."""

    registers: int
    spilled: int
    """Bytes stored and loaded, of a thread."""
    shared: int
    """Bytes of a block."""
    warps: int
    seconds: float
    """Of compiling."""
    ptx: str


def configurations(dtypes=DTYPES, layouts=LAYOUTS) -> Iterator[Configuration]:
    """Everything that the backend launches."""
    for layout in layouts:
        for dtype in dtypes:
            for top_p in TOP_P:
                yield Configuration("_forward_kernel", dtype, layout, top_p)
            yield Configuration("_search_kernel", dtype, layout, TOP_P[0])
            yield Configuration("_backward_kernel", dtype, layout)


def find_ptxas() -> Path | None:
    """The assembler: the triton wheel's, else the one on PATH."""
    spec = find_spec("triton")
    bundled = Path(spec.origin).parent / "backends/nvidia/bin/ptxas" if spec else None
    if bundled and bundled.is_file():
        return bundled
    found = shutil.which("ptxas")
    return Path(found) if found else None


def launch_of(configuration: Configuration):
    """The kernel, its compile-time arguments and warps, as the backend launches them."""
    import torch

    from paec_loss.backends import triton_backend as backend

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[configuration.dtype]
    if configuration.kernel == "_backward_kernel":
        return backend.backward_launch()
    launches = backend.forward_launches(dtype, configuration.top_p, whole=configuration.layout == "whole")
    return next(launch for launch in launches if launch[0].__name__ == configuration.kernel)


def compiled(configuration: Configuration):
    """Triton's compilation for Hopper and its warps, with the arguments specialised as a launch specialises them."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, constants, warps = launch_of(configuration)
    names = kernel.arg_names
    types = {name: f"*{_POINTERS[name]}" if name in _POINTERS else "i32" for name in names}
    types |= {name: f"*{configuration.dtype}" for name in ("logits", "out") if name in types}
    constants = dict(constants)
    if configuration.layout != "strided":
        constants |= {name: 1 for name in ("stride_v", "out_stride_v") if name in types}
    types |= dict.fromkeys(constants, "constexpr")
    sizes = {"vocab_size", "stride_t", "out_stride_t"} if configuration.layout == "whole" else set()
    divisible = [i for i, name in enumerate(names) if types[name][0] == "*" or name in sizes]
    attributes = {(i,): [["tt.divisibility", 16]] for i in divisible}
    source = ASTSource(kernel, types, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options={"num_warps": warps}), warps


def resources(configuration: Configuration, ptxas: Path) -> Resources:
    """Compile and assemble one configuration."""
    start = time.perf_counter()
    binary, warps = compiled(configuration)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(binary.asm["ptx"])
        command = [ptxas, "-v", f"-arch={ARCHITECTURE}", source, "-o", Path(folder) / "kernel.cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = [int(found) for found in re.findall(r"(\d+) bytes spill", report)]
    return Resources(
        registers=int(re.search(r"Used (\d+) registers", report)[1]),
        spilled=sum(spilled),
        shared=binary.metadata.shared,
        warps=warps,
        seconds=time.perf_counter() - start,
        ptx=binary.asm["ptx"],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    ptxas = find_ptxas()
    if find_spec("triton") is None or ptxas is None:
        print("kernel_resources needs Triton and ptxas: pip install triton installs both", file=sys.stderr)
        return 2
    print("| kernel | top_p | dtype | V | warps | registers | spilled bytes | shared bytes | compiled in s |")
    print("|---|---|---|---|---|---|---|---|---|")
    lines = []
    for configuration in configurations(options.dtypes, options.layouts):
        found = resources(configuration, ptxas)
        name, top_p = configuration.kernel.strip("_").removesuffix("_kernel"), configuration.top_p or ""
        print(
            f"| {name} | {top_p} | {configuration.dtype} | {configuration.layout} | {found.warps} | {found.registers} "
            f"| {found.spilled} | {found.shared} | {found.seconds:.1f} |",
            flush=True,
        )
        lines.append(asdict(configuration) | {k: v for k, v in asdict(found).items() if k != "ptx"})
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(options.json) as temporary:
            temporary.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    return int(any(line["spilled"] for line in lines))


if __name__ == "__main__":
    sys.exit(main())
