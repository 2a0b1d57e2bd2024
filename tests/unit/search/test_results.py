"""Tables, the choice and the audit of a search, from settings by hand."""

from __future__ import annotations

import json

import pytest
from search_cases import NEEDS_OPTUNA, Killed, Made, request, searched

from recipe.search.loop import spaces_of
from recipe.search.results import audit, chosen_of, other_seeds, summary, to_markdown, write
from recipe.search.studies import Setting, Studies


def setting(method: str, place: int, value: float | None, steps: int = 8) -> Setting:
    params = {} if method == "none" else {"rho_min": (0.8, 0.7, 0.9)[place]}
    if value is None:
        return Setting(method, place, params, place, None)
    cost = {"steps": steps, "seconds": 16.0, "cpu_seconds": 12.0}
    return Setting(method, place, params, place, {"values": {"11": value, "12": value + 0.02}, **cost})


ASKED_METHODS = {"none": {}, "paec": {"rho_min": [0.7, 0.8, 0.9]}}
ASKED = request(all=["steps=4"], methods=ASKED_METHODS, sampler="grid")
WHOLE = {"none": [setting("none", 0, 0.3)], "paec": [setting("paec", place, 0.4 + 0.1 * place) for place in range(3)]}


def cells(text: str) -> list[list[str]]:
    """The rows of all tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def result(found, failures=()) -> dict:
    return summary(ASKED, spaces_of(ASKED, Made()), found, dict(failures))


def test_the_largest_objective_is_chosen_when_all_are_finished():
    values = [setting("paec", place, value) for place, value in enumerate((0.4, 0.6, 0.6))]
    assert chosen_of(values, 3).place == 1, "of equal ones the first"
    assert chosen_of([setting("paec", 0, 0.6), setting("paec", 1, 0.6)], 2).place == 0, (
        "the default, if no other is better"
    )
    assert chosen_of(values[:2], 3) is None and chosen_of([*values[:2], setting("paec", 2, None)], 3) is None


def test_the_whole_result():
    found = result(WHOLE)
    assert found["equal"] and found["audit"] == (
        "Budget: the same for every method with a knob: 3 settings x 2 seeds = 6 runs, 24 steps. Without a knob, so "
        "with one setting: none."
    )
    none, paec = found["methods"]
    assert (none["chosen"], none["of"], none["knobs"]) == (0, 1, {}) and paec["chosen"] == 2
    assert paec["spent"] == {"settings": 3, "runs": 6, "steps": 24, "seconds": 48.0, "cpu_seconds": 36.0}
    assert paec["settings"][2]["objective"] == pytest.approx(0.61)
    assert paec["settings"][2]["params"] == {"rho_min": 0.9} and paec["settings"][2]["failed"] is None
    text = to_markdown(found)
    assert ["none", "**no knob**", "0.3100", "0.3000", "0.3200"] in cells(text)
    assert ["paec", "rho_min=0.8 (default)", "0.4100", "0.4000", "0.4200"] in cells(text)
    assert ["paec", "**rho_min=0.9**", "0.6100", "0.6000", "0.6200"] in cells(text)
    assert ["paec", "3", "6", "24", "48", "36"] in cells(text)
    assert (
        "Objective: avg@4 of the validation after the last step; mean over seeds 11, 12. Sampler: grid, seed 0." in text
    )
    assert "Overrides: steps=4." in text and text.rstrip().endswith(found["audit"])


def test_an_unfinished_search_chooses_nothing():
    found = result({**WHOLE, "paec": [*WHOLE["paec"][:2], setting("paec", 2, None)]}, {"paec-2": "no room"}.items())
    assert not found["equal"] and found["methods"][1]["chosen"] is None
    assert found["audit"].startswith("Budget: not spent yet: paec 2 of 3 settings.")
    text = to_markdown(found)
    assert "* paec, rho_min=0.9: not finished: no room\n" in text and "**rho_min" not in text
    assert ["paec", "2 of 3", "4", "16", "32", "24"] in cells(text)


def test_the_audit_counts():
    """Equal is what was spent, not what was asked for."""
    rows = [
        {"method": name, "knobs": {"x": 1}, "of": 3, "chosen": 0, "spent": {"settings": 3, "runs": 6, "steps": steps}}
        for name, steps in (("paec", 24), ("siren", 23))
    ]
    assert audit(ASKED, rows) == (False, "Budget: not equal: paec 6 runs, 24 steps; siren 6 runs, 23 steps.")
    assert audit(ASKED, rows[:1])[0]
    plain = {**rows[0], "method": "none", "knobs": {}}
    assert audit(ASKED, [plain]) == (True, "Budget: nothing was searched. Without a knob, so with one setting: none.")


def test_costs_that_are_not_known_are_dashes():
    paec = [setting("paec", place, 0.4) for place in range(3)]
    paec[0].result["cpu_seconds"] = None
    assert ["paec", "3", "6", "24", "48", "-"] in cells(to_markdown(result({**WHOLE, "paec": paec})))


def test_the_chosen_settings_are_judged_with_other_seeds():
    assert other_seeds([11]) == [1, 2, 3] and other_seeds([1, 3]) == [2, 4, 5] and other_seeds([0, 1, 2]) == [3, 4, 5]


def test_files(tmp_path):
    pytest.importorskip("optuna", reason=NEEDS_OPTUNA)
    spaces = spaces_of(ASKED, Made())
    with pytest.raises(Killed):
        searched(tmp_path, ASKED, Made(dies_at=2))
    _, files = write(tmp_path, ASKED, spaces, Studies(tmp_path, ASKED, spaces), Made(), {})
    assert [file.name for file in files] == ["search.json", "search.md"] and not (tmp_path / "next.txt").exists()
    studies = searched(tmp_path, ASKED, Made())
    text, files = write(tmp_path, ASKED, spaces, studies, Made(), {})
    assert [file.name for file in files] == ["search.json", "search.md", "next.txt"]
    assert (tmp_path / "search.md").read_text() == text
    assert json.loads((tmp_path / "search.json").read_text())["methods"][1]["chosen"] == 2
    assert (tmp_path / "next.txt").read_text() == "{'none': {}, 'paec': {'rho_min': 0.9}} [1, 2, 3]\n"


def test_the_file_for_the_chosen_settings_goes_when_a_method_is_added(tmp_path):
    pytest.importorskip("optuna", reason=NEEDS_OPTUNA)
    spaces = spaces_of(ASKED, Made())
    write(tmp_path, ASKED, spaces, searched(tmp_path, ASKED, Made()), Made(), {})
    assert (tmp_path / "next.txt").exists()
    more = request(all=["steps=4"], methods={**ASKED_METHODS, "siren": {"top_p": [0.5, 0.6]}}, sampler="grid")
    more_spaces = spaces_of(more, Made())
    write(tmp_path, more, more_spaces, Studies(tmp_path, more, more_spaces), Made(), {})
    assert not (tmp_path / "next.txt").exists(), "it lacks siren"
