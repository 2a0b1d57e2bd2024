"""Methods in the real pipeline: sampling, advantage, loss and one from outside at once; each by itself (slow)."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pandas
import pytest
from pipeline_runs import PROMPTS, REPOSITORY, SAMPLES, finish, records, start

from paec_loss.methods import METHODS

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1200)]

SHORT = ["trainer.total_training_steps=2", "trainer.save_freq=2", "trainer.test_freq=-1", "run.export=false"]
SHORT += ["trainer.val_before_train=false", "cluster.env.OMP_NUM_THREADS=1"]

TOLD = '''

@dataclass(frozen=True)
class Told(Calm):
    """Calm, and how many tokens have left."""

    def local_sums(self, tokens, context, update):
        left = (tokens.entropy > context) & tokens.response_mask
        return {"left": left.sum().item(), "all": tokens.response_mask.sum().item()}

    def metrics(self, context, sums, update):
        return {"left": sums["left"] / sums["all"]}
'''


def rollouts(directory: Path, step: int) -> dict[str, list[str]]:
    """Prompt (by step and place) -> its responses."""
    found: dict[str, list[str]] = {}
    for line in (directory / "rollouts" / f"{step}.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["uid"].rsplit("_", 2)[0], []).append(record["output"])
    return found


@pytest.fixture(scope="module")
def together(tiny, tmp_path_factory) -> tuple[Path, str, int]:
    """A method from outside (that of docs/methods.md) with AEPO, SEED-GRPO and KL-Cov beside it, on two workers."""
    folder = tmp_path_factory.mktemp("mine")
    page = (REPOSITORY / "docs" / "methods.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.S) if "class Calm" in block]
    (folder / "my_methods.py").write_text(code + TOLD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        process = start(
            tiny,
            folder / "runs",
            *SHORT,
            "cluster.gpus_per_node=2",
            "run.name=together",
            "method=custom",
            "method.class_path=my_methods.Told",
            "+method.top=0.05",
            "also=[seed_grpo,aepo,kl_cov]",
            "also.aepo.temperature_low=0.000001",
            "also.aepo.temperature_high=0.000001",
        )
    output = finish(process)
    return folder / "runs" / "together", output, process.returncode


def steps_of(together) -> list[dict]:
    """The records of the run, which has finished."""
    directory, output, code = together
    assert code == 0, output
    found = records(directory)
    assert [record["step"] for record in found] == [1, 2]
    return found


def test_methods_of_four_kinds_train_together(together):
    steps = steps_of(together)
    assert all(math.isfinite(record["actor/grad_norm"]) and record["actor/grad_norm"] > 0 for record in steps)


def test_a_quarter_of_the_prompts_was_drawn_at_its_own_temperature(together):
    """At a temperature that vLLM takes for 0 all responses of a prompt are the same; at 1 they are not."""
    for step in (1, 2):
        drawn = rollouts(together[0], step)
        assert len(drawn) == PROMPTS and {len(texts) for texts in drawn.values()} == {SAMPLES}
        same = [len(set(drawn[uid])) == 1 for uid in sorted(drawn)]
        assert all(same[PROMPTS * 3 // 4 :]) and sum(same[: PROMPTS * 3 // 4]) < PROMPTS // 2


def test_advantages_are_the_methods(together):
    """(R - mean R) f, and 0 or 1 where drawn apart: within [-1, 1], where GRPO's standard deviation would lead out."""
    for record in steps_of(together):
        assert -1 < record["critic/advantages/min"] < 0 < record["critic/advantages/max"] <= 1


def test_a_method_from_outside_acts_on_the_whole_mini_batch(together):
    for record in steps_of(together):
        assert record["actor/my_methods.Told/left"] == pytest.approx(0.05, abs=0.01)


def test_memory_is_in_the_checkpoint(together):
    state = json.loads((together[0] / "checkpoints" / "global_step_2" / "paec_state.json").read_text())
    assert state["methods"] == {"aepo": {"entropy": steps_of(together)[-1]["actor/aepo/entropy"]}}
    assert state["identity"]["method"] == "my_methods.Told" and state["identity"]["also.seed_grpo.alpha"] == 0.0417


# ---- each by itself --------------------------------------------------------------------------------------------------

QUIET = {
    "clip_higher": "no ratio is beyond 1.2",
    "hicra": "no answer has a phrase of planning",
    "aer": "entropy is above its target, so its coefficient is 0",
    "stare": "entropy is above its target",
    "paec_dual": "the anchor is still being measured, and there is no bonus",
    "paec_selective": "the anchor is still being measured, and there is no bonus",
}
"""Methods that train exactly as GRPO in two steps of the tiny model, and why."""


def scored(tiny: Path, root: Path) -> list[str]:
    """Overrides for a method with an order of the prompts; the scores are made up."""
    file = tiny / "data" / "train.parquet"
    frame = pandas.read_parquet(file)
    frame["extra_info"] = [{**extra, "semantic_entropy": 0.01 * i} for i, extra in enumerate(frame["extra_info"])]
    frame.to_parquet(root / "scored.parquet")
    return ["curriculum=semantic_entropy", f"data.train_files={root / 'scored.parquet'}"]


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory) -> list[dict]:
    """The records of method=none."""
    return trained(tiny, tmp_path_factory.mktemp("plain"), "none")


def trained(tiny: Path, root: Path, name: str) -> list[dict]:
    needs = scored(tiny, root) if "curriculum" in METHODS[name].needs else []
    process = start(tiny, root, *SHORT, f"method={name}", f"run.name={name}", *needs)
    output = finish(process)
    assert process.returncode == 0, output
    state = json.loads((root / name / "checkpoints" / "global_step_2" / "paec_state.json").read_text())
    assert set(state["methods"]) == ({name} if METHODS[name]().tracker() else set())
    return records(root / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"none"}))
def test_every_method_trains(tiny, plain, tmp_path, name):
    found = trained(tiny, tmp_path, name)
    assert [record["step"] for record in found] == [1, 2]
    norms = [[record["actor/grad_norm"] for record in run] for run in (found, plain)]
    assert all(math.isfinite(norm) and norm > 0 for norm in norms[0])
    assert (norms[0] == norms[1]) == (name in QUIET)
