"""Warm starts that are over soon."""

import pytest
from warm_starts import STEPS

from data_prep import tiny, warm_start


@pytest.fixture(scope="module")
def few_samples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm_start, "SAMPLES", 1)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, few_samples):
    output = tmp_path_factory.mktemp("quick start") / "demo"
    assert tiny.make(output, steps=STEPS, train=60, validation=10)
    return output
