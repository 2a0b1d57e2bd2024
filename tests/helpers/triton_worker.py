"""Runs the Triton backend's kernels in Triton's interpreter: `python tests/helpers/triton_worker.py CASES RESULTS`.

A process of its own, because the interpreter is chosen when the kernels are defined.
"""

import sys
from contextlib import nullcontext

import numpy as np
import torch

from benchmarks import interpreter

interpreter.use()

from triton.runtime.interpreter import InterpreterBuilder  # noqa: E402

from paec_loss.backends import triton_backend  # noqa: E402


class ReadCounter:
    """Counts, for each row of a contiguous tensor, the entries that kernels load, as multiples of the row's length."""

    def __init__(self, logits: torch.Tensor):
        self.first, self.itemsize, self.shape = logits.data_ptr(), logits.element_size(), logits.shape
        self.counts = np.zeros(logits.shape[0])
        self.load = InterpreterBuilder.create_masked_load

    def __enter__(self) -> "ReadCounter":
        def counted(builder, pointers, mask, *rest):
            entries = (pointers.data.ravel()[mask.data.ravel()].astype(np.int64) - self.first) // self.itemsize
            inside = entries[(entries >= 0) & (entries < self.shape.numel())]
            self.counts += np.bincount(inside // self.shape[1], minlength=self.shape[0])
            return self.load(builder, pointers, mask, *rest)

        InterpreterBuilder.create_masked_load = counted
        return self

    def __exit__(self, *_) -> None:
        InterpreterBuilder.create_masked_load = self.load

    def reads(self) -> torch.Tensor:
        """[rows]"""
        return torch.from_numpy(self.counts / self.shape[1])


def run(case: dict) -> dict:
    for name, value in case["constants"].items():
        assert isinstance(getattr(triton_backend, name), int)
        setattr(triton_backend, name, value)
    logits, labels, inv_temperature = case["logits"], case["labels"], case["inv_temperature"]
    logits = logits.t().contiguous().t() if case["transposed"] else logits.clone()
    out = logits if case["in_place"] else torch.full_like(logits, 7.0)
    with ReadCounter(logits) if case["count_reads"] else nullcontext() as counter:
        scalars, size = triton_backend.forward(logits, labels, inv_temperature, case["top_p"])
        triton_backend.backward(logits, labels, inv_temperature, scalars, case["upstream"], out)
    reads = counter.reads() if case["count_reads"] else None
    return {"scalars": scalars, "size": size, "gradient": out, "reads": reads}


def main() -> None:
    torch.set_num_threads(1)
    cases = torch.load(sys.argv[1])
    torch.save({name: run(case) for name, case in cases.items()}, sys.argv[2])


if __name__ == "__main__":
    main()
