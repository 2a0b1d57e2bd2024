"""The report: a line for each check and each note, and the errors of all."""

from __future__ import annotations

from recipe.paec.doctor.report import Check, Report


def test_lines_and_errors(capsys):
    report = Report()
    report.add(Check("disk", "3 GiB free"), Check("memory", "1 GiB", errors=("too little: a", "too little: b")))
    report.add(Check("CPUs", "4", notes=("slow",)), Check("limits", "0", errors=("limits: c",), notes=("d", "e")))
    assert capsys.readouterr().out.splitlines() == [
        "ok    disk: 3 GiB free",
        "FAIL  memory: 1 GiB",
        "ok    CPUs: 4",
        "note  slow",
        "FAIL  limits: 0",
        "note  d",
        "note  e",
    ]
    assert report.errors == ["too little: a", "too little: b", "limits: c"]


def test_no_checks_no_errors(capsys):
    report = Report()
    report.add()
    assert report.errors == [] and capsys.readouterr().out == ""
