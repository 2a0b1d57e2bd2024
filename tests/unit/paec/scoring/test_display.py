"""The table of scores, and the order of the papers."""

from __future__ import annotations

from graded_samples import BY_HAND, answers

from recipe.paec.scoring.display import in_papers_order, markdown, percent, table
from recipe.paec.scoring.estimators import bootstrap_interval
from recipe.paec.scoring.scores import score


def test_papers_order():
    given = ["zebra", "olympiadbench", "math500", "amc83", "Gsm|8k", "aime26", "minerva", "aime24", "amc23", "aime25"]
    assert in_papers_order(given) == [
        *("aime24", "aime25", "aime26", "amc23", "amc83", "math500", "minerva", "olympiadbench", "Gsm|8k", "zebra")
    ]


def test_percent():
    assert percent({"value": 0.43333, "low": 0.3, "high": 0.56667}) == "43.3 [30.0, 56.7]"
    assert percent(bootstrap_interval([1.0])) == "100.0"


def test_markdown_escapes_and_aligns():
    assert markdown([["", "a|b"], ["größe", "1"]]) == (
        "|       | a\\|b |\n"
        "| ----- | ---: |\n"
        "| größe |    1 |\n"
    )  # fmt: skip


def test_table():
    samples = [*answers("p", "RxRx", benchmark="other"), *answers("a", "RRR-"), *answers("m", "x", benchmark="minerva")]
    samples[-1] |= {"finish_reason": None, "tokens": None}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(score(samples)).splitlines()]
    assert rows == [
        ["", "AIME24", "Minerva", "other", "Avg"],
        ["-" * 16, "-" * 5 + ":", "-" * 6 + ":", "-" * 4 + ":", "-" * 3 + ":"],
        ["problems", "1", "1", "1", ""],
        ["samples n", "4", "1", "4", ""],
        ["avg@n", "75.0", "0.0", "50.0", "41.7"],
        ["maj@n", "100.0", "0.0", "100.0", "66.7"],
        ["pass@n", "100.0", "0.0", "100.0", "66.7"],
        ["truncated", "0.0", "unknown", "0.0", ""],
        ["unparsable", "25.0", "0.0", "0.0", ""],
        ["grader failed", "0.0", "0.0", "0.0", ""],
        ["graders disagree", "0.0", "0.0", "0.0", ""],
        ["mean length", "10", "unknown", "10", ""],
    ]
    (average,) = (line for line in table(score(BY_HAND)).splitlines() if line.startswith("| avg@n "))
    assert [cell.strip() for cell in average.split("|")[2:5]] == [
        *("41.7 [25.0, 50.0]", "50.0 [50.0, 50.0]", "45.8 [37.5, 50.0]")
    ]
