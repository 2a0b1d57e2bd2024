"""Columns, shares of time, and runs that differ only in their seed."""

import shutil

import yaml
from report_runs import write_run, write_saving
from terminals import ROOT

from recipe.paec.report.responses import read_responses
from recipe.paec.report.runs import read_run
from recipe.paec.report.series import Column, columns, grouped, merged, run_columns, time_shares
from recipe.paec.report.settings import is_place


def read(folder, name=None):
    run = read_run(folder)
    return name, run, read_responses(folder, run.last_step)


def test_columns_hold_the_steps_that_recorded_them():
    found = columns([{"step": 0, "a": 1}, {"step": 1, "b": None}, {"step": 3, "a": 2, "b": 5}])
    assert found == {"a": Column((0, 3), (1, 2)), "b": Column((1, 3), (None, 5))}


def test_time_shares():
    timed = {"timing_s/step": 10.0, "timing_s/gen": 6.0, "timing_s/adv": 1.0, "timing_s/testing": 50.0}
    shares = {"report/time/gen": 0.6, "report/time/adv": 0.1, "report/time/other": 0.3}
    without = [{"timing_s/gen": 6.0}, {"timing_s/step": None}]
    assert time_shares([timed, *without]) == [shares, {}, {}]


def test_stages_that_overlap_are_shares_of_their_sum():
    found = time_shares([{"timing_s/step": 4.0, "timing_s/gen": 6.0, "timing_s/adv": 2.0}])
    assert found == [{"report/time/gen": 0.75, "report/time/adv": 0.25, "report/time/other": 0.0}]


def test_a_stage_of_some_steps_is_0_in_the_others(tmp_path):
    run = read_run(write_saving(tmp_path / "a"))
    found = run_columns(run, None)["report/time/save_checkpoint"]
    assert found == Column((1, 2, 3, 4, 5, 6, 7, 8), (0.0, 0.0, 0.125, 0.0, 0.0, 0.125, 0.0, 0.125))


def test_seeds_are_merged_where_all_have_recorded():
    first = {"a": Column((1, 2, 3), (1.0, None, 3.0)), "b": Column((1,), (1.0,))}
    other = {"a": Column((2, 3, 4), (2.0, 5.0, 6.0))}
    assert merged([first, other]) == {"a": Column((2, 3), (None, 4.0), (None, 3.0), (None, 5.0))}
    assert merged([first]) == first


def test_runs_that_differ_only_in_their_seed_are_one_group(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"paec-seed{seed}", seed=seed)
    write_run(tmp_path / "other", seed=2, rho=0.7)
    groups = grouped([read(tmp_path / name) for name in ("paec-seed0", "other", "paec-seed1")])
    assert [(group.name, len(group.runs)) for group in groups] == [("paec", 2), ("other", 1)]
    entropy = groups[0].columns["actor/entropy"]
    assert entropy.x == tuple(range(1, 9))
    assert (entropy.low[0], entropy.high[0]) == (0.5 - 1 / 64, 0.51 - 1 / 64)
    assert entropy.y[0] == (entropy.low[0] + entropy.high[0]) / 2
    assert groups[1].columns["actor/entropy"].low is None


def test_seeds_of_the_laboratory_are_one_group(tmp_path):
    """The kept run of GRPO and a second seed of it, as `paec lab sweep` names and places them; PAEC's stays apart."""
    for name in ("none-seed1", "paec-seed1"):
        shutil.copytree(ROOT / "benchmarks" / "results" / "runs" / name, tmp_path / name)
    shutil.copytree(tmp_path / "none-seed1", tmp_path / "none-seed2")
    file = tmp_path / "none-seed2" / "config.yaml"
    content = yaml.safe_load(file.read_text())
    assert content["seed"] == 1 and content["name"] == "none-seed1"
    content |= {"seed": 2, "name": "none-seed2", "output": "outputs/lab/none-seed2"}
    file.write_text(yaml.safe_dump(content))
    groups = grouped([read(tmp_path / name) for name in ("none-seed1", "none-seed2", "paec-seed1")])
    assert [(group.name, len(group.runs)) for group in groups] == [("none", 2), ("paec-seed1", 1)]
    assert not is_place("output.width") and not is_place("names")


def test_grpo_and_paec_have_the_same_places_beside_any_others(tmp_path):
    """By their configurations, whatever their names are; a run by itself has the first."""
    for name, method in (("x", "aepo"), ("y", "none"), ("z", "paec")):
        write_run(tmp_path / name, identity={"method": method})
    x, y, z = (read(tmp_path / name) for name in "xyz")
    assert [group.place for group in grouped([y, z])] == [0, 1]
    assert [group.place for group in grouped([x, y, z])] == [2, 0, 1]
    assert [group.place for group in grouped([z, x])] == [1, 2] and grouped([z])[0].place == 0


def test_the_same_seed_twice_is_not_a_group(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name)
    assert [group.name for group in grouped([read(tmp_path / "a"), read(tmp_path / "b")])] == ["a", "b"]


def test_names_of_the_command_line_make_groups(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, other=name)
    groups = grouped([read(tmp_path / "a", "mine"), read(tmp_path / "b", "mine")])
    assert [(group.name, len(group.runs)) for group in groups] == [("mine", 2)]


def test_equal_names_are_told_apart(tmp_path):
    for place in ("x", "y"):
        write_run(tmp_path / place / "same", place=place)
    groups = grouped([read(tmp_path / "x" / "same"), read(tmp_path / "y" / "same")])
    assert [group.name for group in groups] == ["same", "same (2)"]


def test_a_seed_that_stopped_early_ends_the_mean(tmp_path):
    write_run(tmp_path / "m-seed0")
    write_run(tmp_path / "m-seed1", seed=1, last=3)
    (group,) = grouped([read(tmp_path / "m-seed0"), read(tmp_path / "m-seed1")])
    assert group.columns["actor/entropy"].x == (1, 2, 3)
