"""Triton's interpreter in place of a GPU, with the multiply-add that hardware has."""

import os


def use() -> None:
    """Run kernels in the interpreter; before anything imports Triton's kernels, as it is chosen when they are defined.

    The interpreter's own fma rounds twice, and residuals of products would come out 0; this one rounds once.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    import numpy as np
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def fused_multiply_add(_, x, y, z):
        return TensorHandle((x.data.astype(np.float64) * y.data + z.data).astype(z.data.dtype), z.dtype.scalar)

    np.seterr(all="ignore")
    InterpreterBuilder.create_fma = fused_multiply_add
