"""The names of verl that the recipe uses are recorded, and the pinned version has all of them as they were recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import verl_surface

from recipe.paec.common import versions

RECORD = json.loads(verl_surface.RECORD.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sources() -> verl_surface.Sources:
    return verl_surface.sources_of(verl_surface.installed())


@pytest.fixture(scope="module")
def names(sources) -> dict[str, str]:
    return verl_surface.used(sources)


def test_the_pinned_version_is_the_recorded_one(sources, names):
    assert RECORD["verl"] == versions.pinned("verl") == verl_surface.version(verl_surface.installed())
    assert verl_surface.differences(RECORD["names"], sources, names) == []


@pytest.mark.parametrize("name", ["verl.utils.device.get_device_id", "verl.workers.utils.losses.ppo_loss"])
def test_a_used_name_that_is_not_recorded_is_a_difference(sources, names, name):
    record = {other: entry for other, entry in RECORD["names"].items() if other != name}
    assert verl_surface.differences(record, sources, names) == [f"added      {name} ({names[name]}): not in the record"]


def test_what_the_walk_finds():
    """One name of each way to use verl."""
    kinds = {
        "verl.workers.utils.losses.ppo_loss": "function",  # imported
        "verl.trainer.main_ppo.run_ppo": "function",  # imported inside a function
        "verl.utils.tensordict_utils.get_non_tensor_data": "function",  # looked up in an imported module
        "verl.workers.rollout.base._ROLLOUT_REGISTRY": "value",  # set in an imported module
        "verl.utils.fsdp_utils.fsdp2_sharded_save_to_cpu": "function",  # replaced, named in a string
        "verl.workers.engine.fsdp.transformer_impl.CPUOffloadPolicy": "import",  # the same, torch's
        "verl.trainer.ppo.v1.agent_loop_tq.AgentLoopWorkerTQ._run_prompt": "function",  # inside a Ray actor
        "verl.trainer.ppo.v1.trainer_base.PPOTrainer._compute_advantage": "function",  # overridden
        "verl.trainer.ppo.v1.trainer_separate_async.PPOTrainerSeparateAsync._setup": "function",  # by a mixin
        "verl.trainer.ppo.v1.trainer_base.PPOTrainer._dump_futures": "attribute",  # read from self
        "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer.poll_interval": "attribute",  # by hand
    }
    assert {name: RECORD["names"][name]["kind"] for name in kinds} == kinds
    torchs = RECORD["names"]["verl.workers.engine.fsdp.transformer_impl.CPUOffloadPolicy"]
    assert torchs["defined"].startswith("torch.") and torchs["source"] == ""


def test_what_is_listed_by_hand_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in (verl_surface.ROOT / "recipe").rglob("*.py"))
    assert [name for name in verl_surface.BY_HAND if f".{name.rpartition('.')[2]}" not in text] == []


# ---- another version, in small ---------------------------------------------------------------------------------------

RECIPE = """
import importlib
from verl import tools as t
from verl.base import Base, helper

class Ours(Base):
    def __init__(self):
        super().__init__()
        self.own = 1

    def step(self, batch):
        return t.scale(self.rate) + self.own

    def extra(self):
        return helper()

def patch(replace):
    replace(importlib.import_module("verl.tools"), "hidden", lambda old: old)
"""
BEFORE = {
    "verl/__init__.py": "",
    "verl/version/version": "1.0",
    "verl/tools.py": "def scale(x):\n    return x\n\ndef hidden():\n    pass\n",
    "verl/base.py": """
from .inner import helper

class Base:
    def __init__(self):
        self.rate = 1.0

    def step(self, batch):
        return batch
""",
    "verl/inner.py": "def helper():\n    return 1\n",
}


def packages(root: Path, changes: dict[str, str]) -> verl_surface.Sources:
    """A small recipe, and a small verl with some files changed."""
    for name, text in {**BEFORE, "recipe/__init__.py": "", "recipe/ours.py": RECIPE, **changes}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return verl_surface.sources_of(root / "verl", root)


def record_of(root: Path) -> dict[str, dict[str, str]]:
    sources = packages(root, {})
    return {name: vars(sources.entry(name)) for name in verl_surface.used(sources, root, {})}


CHANGES = {
    "nothing": ({}, []),
    "a comment elsewhere": ({"verl/tools.py": "# New.\n" + BEFORE["verl/tools.py"]}, []),
    "a function's body": (
        {"verl/tools.py": BEFORE["verl/tools.py"].replace("return x", "return 2 * x")},
        ["source     verl.tools.scale (recipe/ours.py)"],
    ),
    "a function's arguments": (
        {"verl/tools.py": BEFORE["verl/tools.py"].replace("scale(x)", "scale(x, by)")},
        ["signature  verl.tools.scale (recipe/ours.py): signature (x) -> (x, by)"],
    ),
    "what is replaced": (
        {"verl/tools.py": BEFORE["verl/tools.py"].replace("hidden", "renamed")},
        ["gone       verl.tools.hidden (recipe/ours.py)"],
    ),
    "the place of a function": (
        {"verl/base.py": BEFORE["verl/base.py"].replace(".inner", ".other"), "verl/other.py": BEFORE["verl/inner.py"]},
        ["moved      verl.base.helper (recipe/ours.py): defined verl.inner -> verl.other"],
    ),
    "an attribute renamed": (
        {"verl/base.py": BEFORE["verl/base.py"].replace("self.rate", "self.speed")},
        [
            "source     verl.base.Base (recipe/ours.py)",
            "source     verl.base.Base.__init__ (recipe/ours.py)",
            "gone       verl.base.Base.rate (recipe/ours.py)",
        ],
    ),
    "a hook renamed": (
        {"verl/base.py": BEFORE["verl/base.py"].replace("def step", "def one_step")},
        ["source     verl.base.Base (recipe/ours.py)", "gone       verl.base.Base.step"],
    ),
    "a method of our name": (
        {"verl/base.py": BEFORE["verl/base.py"] + "\n    def extra(self):\n        pass\n"},
        [
            "source     verl.base.Base (recipe/ours.py)",
            "added      verl.base.Base.extra (recipe/ours.py): not in the record",
        ],
    ),
}


@pytest.mark.parametrize("changes, lines", CHANGES.values(), ids=CHANGES)
def test_what_another_version_changes(tmp_path, changes, lines):
    record = record_of(tmp_path / "before")
    assert {"verl.base.Base.step", "verl.base.Base.__init__", "verl.base.Base.rate", "verl.tools.hidden"} < set(record)
    sources = packages(tmp_path / "after", changes)
    assert verl_surface.differences(record, sources, verl_surface.used(sources, tmp_path / "after", {})) == lines


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, verl_surface.__file__, *map(str, arguments)], capture_output=True, text=True)


def test_the_command(tmp_path):
    """On the installed verl, on one that has none of the names, and on a folder that is none."""
    done, pin, count = run(), versions.pinned("verl"), len(RECORD["names"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"verl {pin} against the recorded {pin}: {count} names, 0 differ\n"
    packages(tmp_path, {})
    other = run(tmp_path / "verl")
    assert other.returncode == 1 and other.stdout.splitlines()[-1].startswith("verl 1.0 against the recorded")
    assert "gone       verl.workers.utils.losses.ppo_loss (recipe/paec/" in other.stdout
    refused = run(tmp_path / "verl", "--write")
    assert refused.returncode == 2 and "verl 1.0 has no verl." in refused.stderr
    wrong = run(tmp_path)
    assert wrong.returncode == 2 and "is not a verl package: name the folder" in wrong.stderr
