"""Fields of a method."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from paec_loss.fields import check_fields, words


@dataclass(frozen=True)
class Words:
    phrases: tuple[str, ...] = words(("a",), "phrases")


def test_words_are_a_list_of_non_empty_strings():
    config = Words(phrases=["x", "y z"])
    check_fields(config)
    assert config.phrases == ("x", "y z")
    for bad in ("x", 5, ["x", 1], ["x", ""], {"x"}):
        with pytest.raises(ValueError, match="method.phrases=.*must be a list of non-empty strings"):
            check_fields(Words(phrases=bad))
