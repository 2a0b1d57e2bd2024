"""The composition that the tests use is Hydra's, for every kind of override, after others, and with its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf

from recipe.paec.config.resolve import composed

COMMAND_LINES = [
    [],
    ["experiment=tiny_cpu", "method=siren", "method.lambda_low=0.5"],
    ["experiment=tiny_cpu", "method=siren", "method.lambda_low=0.25", "data.seed=3"],
    ["experiment=qwen7b", "method=paec", "also=[aer,steer]", "data.train_files=[a,b]"],
    ["experiment=qwen7b", "method=paec", "also=[steer]", "+data.extra={a: 1}", "~trainer.balance_batch"],
    ["experiment=tiny_cpu", "method=custom", "method.class_path=my_pkg.Mine", "+method.alpha=2"],
    ["experiment=tiny_cpu", "++reward.scorers.mine=my_pkg.score", "hydra.job.name=other"],
]
REFUSED = [
    ["experiment=tiny_cpu", "method=sirene"],
    ["experiment=tiny_cpu", "method.no_such_field=1"],
    ["experiment=tiny_cpu", "also=[nobody]"],
    ["no_such_group=1"],
]


def outcome(overrides: list[str]) -> dict:
    """The configuration and Hydra's own notes about it, or its error."""
    try:
        config = composed(*overrides)
    except HydraException as error:
        return {"error": f"{type(error).__name__}: {error}"}
    hydra = HydraConfig.get()
    flags = [config._get_flag("struct"), config.data._get_flag("struct"), config._get_flag("readonly")]
    return {
        "config": OmegaConf.to_container(config, resolve=False),
        "choices": OmegaConf.to_container(hydra.runtime.choices),
        "overrides": OmegaConf.to_container(hydra.overrides),
        "job": hydra.job.name,
        "flags": flags,
    }


@pytest.fixture(scope="module")
def hydras_own() -> list[dict]:
    """Composed in another process, which knows nothing of these tests, each command line by itself."""
    program = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_quick_composition import COMMAND_LINES, REFUSED, outcome
print(json.dumps([outcome(line) for line in COMMAND_LINES + REFUSED]))
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


def test_it_is_hydras_own(hydras_own):
    for _ in range(2):
        found = [outcome(line) for line in COMMAND_LINES + REFUSED]
        assert json.loads(json.dumps(found)) == hydras_own
    assert sum("error" in one for one in hydras_own) == len(REFUSED)
    assert hydras_own[1] != hydras_own[2]


def test_what_is_changed_afterwards_stays_with_its_own_configuration():
    first = composed(*COMMAND_LINES[1])
    first.data.train_batch_size = 12345
    assert composed(*COMMAND_LINES[1]).data.train_batch_size != 12345
