"""Names of responses in verl's queue, `<prompt>_<response>_<output>`; records of responses have them as `uid`."""

from __future__ import annotations

import hashlib


def parts_of(key: str) -> tuple[str, int, int]:
    """(the prompt's name, number of the response, number of the output) of a response's name."""
    prompt, response, output = key.rsplit("_", 2)
    return prompt, int(response), int(output)


def prompt_of(key: str) -> str:
    """The prompt's name; of a name of another form, what is before its last two `_`."""
    return key.rsplit("_", 2)[0]


def response_number(name: str) -> int:
    """62 bits of the SHA-256 of a name: the number of a response, or of a prompt."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2
