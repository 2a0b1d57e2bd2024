"""Values with special characters, as Hydra's grammar takes them."""

from __future__ import annotations

import re
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def quoted(value: str) -> str:
    """The value with quotes where it needs them: around the items of a list or of a dict, else around all of it."""
    value = value.strip()
    if _readable(value):
        return value
    if value[:1] + value[-1:] in ("[]", "{}"):
        items = [_pair(item) if value[0] == "{" else quoted(item) or '""' for item in _items(value[1:-1])]
        if _readable(text := value[0] + ",".join(items) + value[-1]):
            return text
    # Hydra reads backslashes as an escape before a quote alone, which the closing one is too.
    text = re.sub(r'(\\+)(?="|\Z)', r"\1\1", value.strip("'\"")).replace('"', '\\"')
    return f'"{text}"'


def _pair(item: str) -> str:
    key, _, value = item.partition(":")
    return f"{key.strip()}: {quoted(value)}"


def _items(text: str) -> list[str]:
    """The parts between the commas that are outside quotes and brackets; an apostrophe in a word is no quote."""
    items, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote and not items[-1].endswith("\\") else quote
        elif character in "'\"" and not items[-1].strip():
            quote = character
        elif character == "," and depth == 0:
            items.append("")
            continue
        else:
            depth += (character in "[{") - (character in "]}")
        items[-1] += character
    return items


def _readable(value: str) -> bool:
    try:
        return not _parser().parse_override(f"key={value}").is_sweep_override()
    except HydraException:
        return False


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()
