"""When a run of a grid is done."""

from __future__ import annotations

from grid_cases import exported, made_run

from recipe.paec.grid.runs import GridRun


def test_what_is_done(tmp_path):
    whole = [{"step": 0}, {"step": 1}, {"step": 2}]
    assert not GridRun("a", 1, tmp_path / "none", 2, saves=True, exports=True).finished()
    assert not made_run(tmp_path / "t-early-seed1", whole[:2], saved=1).finished()
    assert not made_run(tmp_path / "t-unsaved-seed1", whole, saved=1).finished(), "killed before its checkpoint counted"
    run = made_run(tmp_path / "t-whole-seed1", whole, saved=2)
    assert run.finished() and not run.done(), "killed before the export"
    exported(run, step=1)
    assert not run.done(), "the export is that of an earlier end"
    exported(run)
    assert run.done()
    exported(run, checkpoint="of a checkpoint of this step that was set aside")
    assert not run.done()
    assert GridRun("whole", 1, run.directory, 2, saves=False, exports=True).done()
    assert not GridRun("whole", 1, run.directory, 3, saves=True, exports=True).finished(), "asked for more since"
