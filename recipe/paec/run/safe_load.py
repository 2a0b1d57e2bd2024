"""Reads tensors from a checkpoint without executing code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recipe.paec.run.checkpoints import CheckpointError

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""torch obeys this variable if a caller asks for `weights_only=False`."""


@contextmanager
def tensors_only(folder: Path) -> Iterator[None]:
    """While the block runs, `torch.load` in this process only reads tensors and plain data, whatever verl requests.

    NumPy's random state, which verl's checkpoints contain, is also allowed. Only use it while a checkpoint is read:
    verl also sends its batches between processes with `torch.load`.

    Args:
        folder: what is read, for the error.

    Raises:
        CheckpointError: the file contains something else, which loading would execute; it was not executed.
    """
    import numpy
    import torch
    import torch.distributed.tensor  # noqa: F401  (registers DTensor as safe)

    state = [numpy._core.multiarray._reconstruct, numpy.ndarray, numpy.dtype, type(numpy.dtype("uint32"))]
    before = os.environ.get(FORCE)
    os.environ[FORCE] = "1"
    try:
        with torch.serialization.safe_globals(state):
            yield
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{folder}: a file contains something other than tensors, which loading would execute: it was not written "
            "by a training run of this recipe, or was tampered with; delete the folder to resume from the previous "
            "checkpoint"
        ) from None
    finally:
        if before is None:
            del os.environ[FORCE]
        else:
            os.environ[FORCE] = before
