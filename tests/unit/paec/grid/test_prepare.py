"""Everything is checked before a run starts."""

from __future__ import annotations

import re

import pytest
from grid_cases import made_run
from omegaconf import OmegaConf

from recipe.paec.common.errors import UserError
from recipe.paec.grid import command as grid_command
from recipe.paec.grid import prepare
from recipe.paec.grid.runs import GridRun


@pytest.mark.parametrize(
    "words, problems",
    [
        (["METHODS=none sirn"], ["sirn: no method sirn: did you mean siren? The options are .*, paec, .*, siren.*"]),
        (["METHODS=none", "EXPERIMENT=tiny_cp"], ["no experiment tiny_cp: did you mean tiny_cpu? The options are .*"]),
        (
            ["METHODS=none paec:method.rho=7 bad=paec:metod.rho=1"],
            ["paec-rho=7: method.rho=7: must be .*", "bad: unknown configuration key metod.rho: did you mean .*"],
        ),
        (["METHODS=none paec", "data.train_batch_size=7"], ["data.train_batch_size=7 must be a multiple of .*"]),
        (
            ["METHODS=none long=none:trainer.total_training_steps=50", "trainer.test_freq=-1"],
            [
                "none, long: trainer.test_freq must be > 0: .*",
                "long and none cannot be compared: trainer.total_training_steps is 50 and 150: set it for all runs, .*",
            ],
        ),
    ],
)
def test_everything_is_checked_before_anything_starts(words, problems, tmp_path):
    with pytest.raises(UserError) as error:
        grid_command.run([*words, f"run.root={tmp_path / 'runs'}"])
    assert len(error.value.errors) == len(problems)
    for problem, expected in zip(error.value.errors, problems, strict=True):
        assert re.fullmatch(expected.replace("? ", r"\? "), problem), problem
    assert not (tmp_path / "runs").exists()


def test_another_run_in_the_directory_is_refused(compose, tmp_path):
    """Lengths, places and monitoring may differ, as for a resumed run; nothing else may."""
    config = compose("experiment=tiny_cpu", "trainer.total_training_steps=2", "run.poll_interval=0.3")
    text = OmegaConf.to_yaml(config)
    run = made_run(tmp_path / "t-paec-seed1", [{"step": 2}], config=text)
    same = compose("experiment=tiny_cpu", "trainer.total_training_steps=5", "cluster.nodes=2")
    slurm = compose("experiment=tiny_cpu", "trainer.total_training_steps=2", "cluster.gpus_per_node=4")
    assert prepare._other_run(run, config) == prepare._other_run(run, same) == prepare._other_run(run, slurm) == []
    other = compose("experiment=tiny_cpu", "actor_rollout_ref.actor.optim.lr=1e-4")
    (problem,) = prepare._other_run(run, other)
    assert problem == (
        f"{run.directory} contains another run: its actor_rollout_ref.actor.optim.lr is 5e-05, but this command has "
        "0.0001: choose another run.root"
    )
    longer = GridRun("paec", 1, run.directory, 1, saves=True, exports=True)
    (problem,) = prepare._other_run(longer, config)
    assert problem.startswith(
        f"{run.directory} is already at step 2, more than the 1 steps asked for: choose another run.root"
    )
