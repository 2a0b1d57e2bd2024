"""Which policies are compared."""

from analysed import lab_run, sampled_evaluation

from recipe.paec.analyse.pairs import pair_name, pairs_of
from recipe.paec.analyse.sources import base_policies, read_source


def test_the_first_and_last_validation(tmp_path):
    remarks = []
    (pair,) = pairs_of(read_source(str(lab_run(tmp_path / "run", {0: [1, 2], 5: [0, 0], 9: [3, 4]}))), {}, remarks)
    assert remarks == []
    assert [(base.correct, trained.correct) for base, trained in pair.problems] == [(1, 3), (2, 4)]
    assert pair_name(pair.about()) == "run, validation, gsm8k: step 0 -> step 9"


def test_one_policy_needs_a_base(tmp_path):
    folder = sampled_evaluation(tmp_path / "a", {"aime24": ["Aa"]})
    remarks = []
    assert pairs_of(read_source(str(folder)), {}, remarks) == []
    assert remarks == [
        "a, evaluation, aime24: there is only one policy, so nothing to compare: give the evaluation of its base model "
        "with --base FOLDER"
    ]


def test_evaluations_against_a_base(tmp_path):
    base = base_policies(str(sampled_evaluation(tmp_path / "base", {"aime24": ["Aa", "bb"]}, step=None)))
    trained = read_source(str(sampled_evaluation(tmp_path / "paec", {"aime24": ["aa", "Bb"]})))
    remarks = []
    (pair,) = pairs_of(trained, base, remarks)
    assert remarks == [] and [(b.correct, t.correct) for b, t in pair.problems] == [(1, 0), (0, 1)]


def test_what_cannot_be_compared(tmp_path):
    base = base_policies(str(sampled_evaluation(tmp_path / "base", {"aime24": ["Aa", "bb"]})))
    others = {
        "warm": ({"aime24": ["aa", "Bb"]}, {"temperature": 1.0}, "protocol's temperature"),
        "less": ({"aime24": ["aa"]}, {}, "lacks 1 problem of aime24"),
        "other": ({"math500": ["aa"]}, {}, "--base has no samples of this benchmark"),
    }
    for name, (problems, about, sentence) in others.items():
        remarks = []
        assert pairs_of(read_source(str(sampled_evaluation(tmp_path / name, problems, **about))), base, remarks) == []
        assert len(remarks) == 1 and sentence in remarks[0], remarks
        assert "--allow" not in remarks[0] and "--benchmark" not in remarks[0], "options of paec compare"


def test_validations_keep_their_own_base(tmp_path):
    base = base_policies(str(sampled_evaluation(tmp_path / "base", {"gsm8k": ["Aa", "bb"]})))
    (pair,) = pairs_of(read_source(str(lab_run(tmp_path / "run", {0: [1], 9: [3]}))), base, [])
    assert pair.base.step == 0
