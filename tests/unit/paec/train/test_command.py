"""The report at the end of a run."""

from report_runs import write_run

from recipe.paec.report import command as report_command
from recipe.paec.train.command import files_of, report


def test_the_report_is_named_in_the_summary(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    assert "report" not in files_of(folder)
    report(folder)
    assert files_of(folder)["report"] == str(folder / "report.html")
    assert capsys.readouterr().out == ""


def test_a_run_does_not_fail_because_of_its_report(tmp_path, capsys, monkeypatch):
    def fail(folder, ended):
        raise RecursionError("too deep")

    monkeypatch.setattr(report_command, "report_of", fail)
    report(tmp_path)
    assert capsys.readouterr().out == (
        f"no report was written (RecursionError: too deep); paec report {tmp_path} tries again\n"
    )


def test_why_the_run_failed(tmp_path):
    folder = write_run(tmp_path / "a", last=3)
    report(folder, ended="no heartbeat for 60 s")
    assert "failed at step 3 of 8: no heartbeat for 60 s" in (folder / "report.html").read_text(encoding="utf-8")
