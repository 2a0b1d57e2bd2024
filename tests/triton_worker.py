"""Runs the Triton backend's kernels in Triton's interpreter: `python tests/triton_worker.py CASES RESULTS`.

A process of its own, because the interpreter is chosen when the kernels are defined.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from paec_loss.backends import triton_backend


def fused_multiply_add(_, x, y, z):
    """One rounding, as in hardware; the interpreter's own rounds twice, and residuals of products come out 0."""
    return TensorHandle((x.data.astype(np.float64) * y.data + z.data).astype(z.data.dtype), z.dtype.scalar)


def run(case: dict) -> dict:
    for name, value in case["constants"].items():
        assert isinstance(getattr(triton_backend, name), int)
        setattr(triton_backend, name, value)
    logits, labels, inv_temperature = case["logits"], case["labels"], case["inv_temperature"]
    logits = logits.t().contiguous().t() if case["transposed"] else logits.clone()
    scalars, size = triton_backend.forward(logits, labels, inv_temperature, case["top_p"])
    out = logits if case["in_place"] else torch.full_like(logits, 7.0)
    triton_backend.backward(logits, labels, inv_temperature, scalars, case["upstream"], out)
    return {"scalars": scalars, "size": size, "gradient": out}


def main() -> None:
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    InterpreterBuilder.create_fma = fused_multiply_add
    cases = torch.load(sys.argv[1])
    torch.save({name: run(case) for name, case in cases.items()}, sys.argv[2])


if __name__ == "__main__":
    main()
