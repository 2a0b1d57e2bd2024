"""Names of responses in the queue: their parts, and the number of a response."""

from __future__ import annotations

import hashlib

import pytest

from recipe.paec.common.queue_keys import parts_of, prompt_of, response_number


def test_parts_of_a_name():
    assert parts_of("000012-000003_7_1") == ("000012-000003", 7, 1)
    assert parts_of("with_an_underscore_0_0") == ("with_an_underscore", 0, 0)
    with pytest.raises(ValueError):
        parts_of("a name")


def test_the_prompt_of_a_name():
    assert prompt_of("000012-000003_7_1") == "000012-000003"
    assert prompt_of("a name") == "a name"


def test_the_number_of_a_response():
    """The first 62 bits of: printf '000001-000000_0_0' | sha256sum"""
    digest = hashlib.sha256(b"000001-000000_0_0").hexdigest()
    assert response_number("000001-000000_0_0") == int(digest[:16], 16) // 4 < 2**62
