"""What every test of this folder shares: the device, and the message with which it is skipped if there is none.

`PAEC_GPU_TESTS_ON=cpu` is a rehearsal: the bodies run on the CPU with the torch backend and gloo, so that a machine
with a GPU does not meet them for the first time. What only a GPU has is then left out, and said in the test.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

REHEARSAL = os.environ.get("PAEC_GPU_TESTS_ON", "cuda") == "cpu"
MISSING = "needs a CUDA GPU, and this machine has none: bash tests/run.sh --gpu where there is one"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    if not REHEARSAL and not torch.cuda.is_available():
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=MISSING))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU; in a rehearsal the CPU."""
    return torch.device("cpu") if REHEARSAL else torch.device("cuda", 0)


@pytest.fixture(scope="session")
def platform() -> str:
    """verl's name of the platform that the workers of a test run on."""
    return "cpu" if REHEARSAL else "nvidia"


@pytest.fixture(autouse=True)
def enough_memory():
    """Nothing of the test before is left on the GPU."""
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
