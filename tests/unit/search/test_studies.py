"""Settings in Optuna's journal: the default first, the same number for all, and the same whatever is killed."""

from __future__ import annotations

from statistics import fmean

import pytest
from search_cases import FILE, NEEDS_OPTUNA, Killed, Made, first_knob, request, searched, tried

from recipe.paec.common.errors import UserError
from recipe.search.loop import spaces_of
from recipe.search.studies import ATTEMPTS, JOURNAL, Studies, drop_torn_line

optuna = pytest.importorskip("optuna", reason=NEEDS_OPTUNA)
TPE = {"name": "tpe", "seed": 5, "startup": 2}


def test_every_method_gets_as_many_settings_the_default_first(tmp_path):
    asked = request()
    studies = searched(tmp_path, asked, runner := Made())
    found = tried(studies, asked)
    assert found["none"] == [{}]
    assert found["paec"][0] == {"rho_min": 0.8} and len(found["paec"]) == 3
    assert all(0.1 <= params["rho_min"] <= 0.9 for params in found["paec"])
    assert found["clip_cov"][0] == {"ratio": 0.0002}
    assert sorted(params["ratio"] for params in found["clip_cov"]) == [0.0002, 0.002, 0.02], "none of them twice"
    assert runner.ran[:3] == ["none-0", "paec-0", "clip_cov-0"], "the defaults of all methods come first"
    one = studies.settings("paec")[0]
    assert one.result["values"] == {"11": pytest.approx(0.811), "12": pytest.approx(0.812)}
    assert one.mean == pytest.approx(0.8115)
    assert (one.result["steps"], one.result["seconds"], one.result["cpu_seconds"]) == (8, 16.0, 12.0)
    assert studies.due() == []


@pytest.mark.parametrize("sampler", ["random", TPE])
@pytest.mark.parametrize("dies_at", range(7))
def test_a_kill_changes_nothing(tmp_path, sampler, dies_at):
    asked = request(sampler=sampler)
    whole = tried(searched(tmp_path / "whole", asked, Made()), asked)
    first, second = Made(dies_at=dies_at), Made()
    with pytest.raises(Killed):
        searched(tmp_path / "parts", asked, first)
    studies = searched(tmp_path / "parts", asked, second)
    assert tried(studies, asked) == whole
    assert not set(first.ran) & set(second.ran), "what is finished is kept"
    assert len(first.ran) + len(second.ran) == 1 + 3 + 3
    last = Made()
    searched(tmp_path / "parts", asked, last)
    assert last.ran == [], "never more than the budget"


def test_a_setting_that_was_begun_is_run_first(tmp_path):
    asked = request(sampler=TPE)
    with pytest.raises(Killed):
        searched(tmp_path, asked, Made(dies_at=3))
    begun = [one for one in Studies(tmp_path, asked, spaces_of(asked, Made())).settings("paec") if one.result is None]
    assert [one.label for one in begun] == ["paec-1"]
    studies = searched(tmp_path, asked, runner := Made())
    assert runner.ran[0] == "paec-1"
    assert studies.settings("paec")[1].params == begun[0].params and studies.settings("paec")[1].result is not None


def test_tpe_uses_what_was_found(tmp_path):
    asked = request(sampler=TPE, trials=12, methods={"paec": {"rho_min": {"low": 0.1, "high": 0.9}}})
    up = tried(searched(tmp_path / "up", asked, Made()), asked)["paec"]
    down = tried(searched(tmp_path / "down", asked, Made(lambda *of: -first_knob(*of))), asked)["paec"]
    assert up[:2] == down[:2] and up[2] != down[2], "the first two are drawn at random"
    high, low = (fmean(params["rho_min"] for params in found[2:]) for found in (up, down))
    assert high > 0.5 > low, "the others more often where the objective is large"


def test_the_seed_of_the_sampler(tmp_path):
    found = []
    for seed in (0, 0, 1):
        asked = request(sampler={"name": "random", "seed": seed})
        found.append(tried(searched(tmp_path / str(len(found)), asked, Made()), asked)["paec"])
    assert found[0] == found[1] and found[0][0] == found[2][0] and found[0][1:] != found[2][1:]


def test_a_grid_is_tried_in_its_order(tmp_path):
    methods = {"paec": {"rho_min": [0.7, 0.8], "beta": [0.3, 0.5]}}
    asked = request(sampler="grid", trials=4, methods=methods)
    found = tried(searched(tmp_path, asked, Made()), asked)["paec"]
    assert [(p["rho_min"], p["beta"]) for p in found] == [(0.8, 0.3), (0.7, 0.3), (0.7, 0.5), (0.8, 0.5)]


def test_a_small_space_is_tried_completely(tmp_path):
    """Draws that keep repeating end: here TPE sees one good value, and has three integers in all."""
    knob = {"anchor_steps": {"low": 3, "high": 5, "int": True}}
    asked = request(sampler={"name": "tpe", "startup": 1}, trials=3, methods={"paec": knob})
    found = tried(searched(tmp_path, asked, Made()), asked)["paec"]
    assert found[0] == {"anchor_steps": 4} and sorted(p["anchor_steps"] for p in found) == [3, 4, 5]
    study = optuna.load_study(study_name="paec", storage=_storage(tmp_path))
    assert len(study.trials) <= 3 + 2 * ATTEMPTS


def _storage(folder):
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    return optuna.storages.JournalStorage(backend)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"trials": 2}, "its trials is 3, but this file has 2: choose another --output, or restore the file"),
        ({"seeds": [11]}, "its seeds is [11, 12], but this file has [11]"),
        ({"all": ["steps=9"]}, "its all is [], but this file has ['steps=9']"),
        ({"sampler": {"name": "random", "seed": 1}}, "its sampler is {'name': 'random', 'seed': 0, "),
        ({"objective": {"take": "best", "of": "avg@4"}}, "its objective is {'take': 'last', "),
        (
            {"methods": {**FILE["methods"], "paec": {"rho_min": {"low": 0.2, "high": 0.9}}}},
            "its methods.paec.rho_min is {'values': {'low': 0.1, ",
        ),
    ],
)
def test_another_search_in_the_folder_is_refused(tmp_path, changes, sentence):
    searched(tmp_path, request(), Made())
    before = (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(UserError) as caught:
        searched(tmp_path, request(**changes), Made())
    assert str(caught.value).startswith(f"{tmp_path} holds another search: {sentence}")
    assert len(caught.value.errors) == 1 and (tmp_path / JOURNAL).read_bytes() == before


def test_a_method_may_come_but_not_go(tmp_path):
    few = request(methods={"paec": {"rho_min": [0.7, 0.8, 0.9]}})
    searched(tmp_path, few, Made())
    more = request(methods={"siren": {"lambda_low": [0.005, 0.05, 0.5]}, "paec": {"rho_min": [0.7, 0.8, 0.9]}})
    searched(tmp_path, more, runner := Made())
    assert runner.ran == ["siren-0", "siren-1", "siren-2"]
    with pytest.raises(UserError, match="has also searched siren, which the file no longer names: put it back"):
        searched(tmp_path, few, Made())


def test_what_a_kill_leaves_in_the_journal(tmp_path):
    """A line that is cut off, and a trial without its parameters: both are written again, and are the same."""
    asked = request()
    whole = tried(searched(tmp_path / "whole", asked, Made()), asked)
    with pytest.raises(Killed):
        searched(tmp_path / "parts", asked, Made(dies_at=0))
    studies = Studies(tmp_path / "parts", asked, spaces_of(asked, Made()))
    kept = tried(studies, asked)
    journal = tmp_path / "parts" / JOURNAL
    study = optuna.load_study(study_name="paec", storage=_storage(tmp_path / "parts"))
    study.ask()
    with open(journal, "a") as stream:
        stream.write('{"op_code": 5, "trial')
    again = searched(tmp_path / "parts", asked, Made())
    assert kept == whole == tried(again, asked)


def test_only_a_torn_line_is_dropped(tmp_path):
    file = tmp_path / "j"
    for content, left in ((b"a\nb\n", b"a\nb\n"), (b"a\nb", b"a\n"), (b"a", b""), (b"", b"")):
        file.write_bytes(content)
        drop_torn_line(file)
        assert file.read_bytes() == left
