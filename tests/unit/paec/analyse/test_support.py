"""Support, against hand values and against every choice of k samples."""

import math
from itertools import combinations

import numpy as np
import pytest
from analysed import answered, counted, pair

from recipe.paec.analyse.support import (
    analyse,
    by_chance,
    detection_limit,
    memberships,
    published_limit,
    ratios,
    sign_test,
    table,
)


def test_the_ratios_of_counts():
    np.testing.assert_allclose(ratios([18, 1, 4]), [0.818182, 0.052632, 0.098901, -0.130435], atol=5e-7)


def test_undefined_ratios():
    nan = np.nan
    np.testing.assert_array_equal(ratios([[0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 1, 1]])[0], [nan] * 4)
    np.testing.assert_array_equal(ratios([0, 2, 0]), [nan, 1, nan, 1])
    np.testing.assert_array_equal(ratios([0, 0, 2]), [0, nan, nan, -1])
    np.testing.assert_array_equal(ratios([0, 1, 1]), [0, 1, 0, 0])


def brute_memberships(base, trained, k):
    """Means over all pairs of k samples."""
    found = []
    for a in combinations(base, k):
        for b in combinations(trained, k):
            x, y = any(a), any(b)
            found.append([x and y, y and not x, x and not y])
    return np.mean(found, 0)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_memberships_against_every_choice(k):
    texts = [("Aabb", "aabb"), ("AAab", "Aabb"), ("aabb", "AAAb"), ("AAAA", "aaaa"), ("aaaa", "aaaa")]
    problems = pair(answered(*(a for a, _ in texts)), answered(*(b for _, b in texts))).problems
    expected = [brute_memberships([x.isupper() for x in a], [x.isupper() for x in b], k) for a, b in texts]
    np.testing.assert_allclose(memberships(problems, k), expected, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_chance_against_every_pair_of_disjoint_choices(k):
    verdicts = [True, False, False, True, False, False]
    found = []
    for a in combinations(range(6), k):
        for b in combinations(sorted(set(range(6)) - set(a)), k):
            x, y = any(verdicts[i] for i in a), any(verdicts[i] for i in b)
            found.append([x and y, y and not x, x and not y])
    problems = pair(counted(2, n=6), counted(0, n=6)).problems
    np.testing.assert_allclose(by_chance(problems, k)[0], np.mean(found, 0), atol=1e-12)


def test_chance_needs_twice_the_samples():
    assert by_chance(pair(counted(2, n=5), counted(2, n=5)).problems, 3) is None


def test_the_detection_limit():
    assert published_limit(8192) == pytest.approx(3.6569e-4, abs=5e-9)
    for k in (1, 8, 32, 1024):
        assert (1 - detection_limit(k)) ** k == pytest.approx(0.05)
        assert detection_limit(k) < published_limit(k)
    assert detection_limit(1) == pytest.approx(0.95)


def test_the_sign_test():
    assert sign_test(0, 0) == 1 and sign_test(3, 3) == 1
    assert sign_test(1, 8) == pytest.approx(2 * (1 + 9) / 2**9)
    assert sign_test(0, 5) == sign_test(5, 0) == pytest.approx(2 / 32)
    # Its size: of all ways in which 10 problems can change sides, p <= 0.05 in at most 5 %.
    assert sum(math.comb(10, e) for e in range(11) if sign_test(e, 10 - e) <= 0.05) / 2**10 <= 0.05


def test_a_pair_with_all_samples():
    # 18 kept, 1 new, 4 lost, 2 unsolved.
    found = analyse(pair(counted(*[2] * 18, 0, *[1] * 4, 0, 0), counted(*[4] * 18, 1, *[0] * 4, 0, 0)))
    assert found["counts"] == {"kept": 18, "expanded": 1, "shrunk": 4, "unsolved": 2}
    assert found["p"] == pytest.approx(2 * (1 + 5) / 2**5)
    last = found["at"][-1]
    assert [place["k"] for place in found["at"]] == [1, 2, 4] and last["chance"] is None
    assert last["SRR"]["value"] == pytest.approx(18 / 22) and last["SRR"]["low"] < 18 / 22 < last["SRR"]["high"]
    assert last["NSCR"]["value"] == pytest.approx(-3 / 23)
    once = memberships(pair(counted(2), counted(4)).problems, 1)[0]
    np.testing.assert_allclose(once, [0.5, 0.5, 0])
    # k = 1: P = 18 * .5, E = 18 * .5 + .25, S = 4 * .25
    assert found["at"][0]["NDR"]["value"] == pytest.approx(9.25 / 18.25)
    # 18 problems with 2 of 4: pass@1 .5, pass@2 5/6; 4 with 1 of 4: .25, .5
    e, p = 18 * (5 / 6 - 0.5) + 4 * 0.25, 18 * (1 - 5 / 6)
    assert found["at"][0]["chance"] == pytest.approx(e / (e + p))


def test_other_numbers_of_samples():
    """Up to the smaller n; no counts, because a problem is then in a support only with some probability."""
    found = analyse(pair(counted(1, 0, n=8), counted(1, 2, n=2)))
    assert [place["k"] for place in found["at"]] == [1, 2] and found["counts"] is None and found["p"] is None
    # k = 2: base .25 and 0, trained 1 and 1
    assert found["at"][-1]["SRR"]["value"] == 1 and found["at"][-1]["NDR"]["value"] == pytest.approx(1.75 / 2)
    assert found["at"][0]["chance"] == pytest.approx(1 - 0)  # E = S = 1/8, P = 0 of a single right sample


def test_the_same_policy_is_near_chance():
    random = np.random.default_rng(0)
    rates = random.random(400)
    base, trained = (counted(*random.binomial(16, rates), n=16) for _ in range(2))
    for place in analyse(pair(base, trained))["at"][:-1]:
        assert place["NDR"]["low"] < place["chance"] < place["NDR"]["high"]
        assert place["NSCR"]["low"] < 0 < place["NSCR"]["high"]


def test_the_table():
    text = table([analyse(pair(counted(2, 0), counted(4, 0)))])
    head, _, first, second, third = text.splitlines()
    assert "kept/new/lost/none" in head
    assert "run, validation, gsm8k: step 0 -> step 9" in first and "1/0/0/1" in first
    assert second.split("|")[1].strip() == "" and second.split("|")[2].strip() == "2"
    assert third.split("|")[2].strip() == "1"
