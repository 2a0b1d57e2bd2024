"""Which colour a line has."""

import pytest

from recipe.paec.compare.palette import places


@pytest.mark.parametrize(
    "names, expected",
    [
        (["none", "paec"], [0, 1]),
        (["paec", "none"], [1, 0]),
        (["aepo", "none", "paec"], [2, 0, 1]),
        (["GRPO", "GRPO + PAEC"], [0, 1]),
        (["tiny_cpu-paec-rho=0.7-seed1", "tiny_cpu-none-seed1", "tiny_cpu-paec-seed1"], [2, 0, 1]),
        (["paec-rho=0.7", "paec-rho=0.9"], [1, 2]),
        (["paec_text", "pass_at_k+paec"], [2, 3]),
        (["a", "b", "c", "d", "e", "f", "g"], [2, 3, 4, 5, 0, 1, 6]),
        (["none", "b", "c", "d", "e", "f", "g"], [0, 2, 3, 4, 5, 1, 6]),
        ([], []),
    ],
)
def test_grpo_and_paec_have_their_own(names, expected):
    assert places(names) == expected


def test_known_methods_count_more_than_names():
    assert places(["first", "second", "paec"], ["paec", "none", "siren"]) == [1, 0, 2]


def test_places_that_are_taken():
    assert places(["none", "paec", "other"], taken=[0, 2]) == [3, 1, 4]
