"""Numbers that are written as words: `nine hundred` is 900, `one third` is 1/3, `twenty-first` is 21st.

`in_digits` works on the tokens of `data_prep.shingles`, case folded and without punctuation. It knows English:

* cardinals: `twenty one`, `nine hundred and five`, `two million`, `1.5 million`, `a dozen`, `half a million`
* fractions: `half`, `two thirds`, `three quarters`, `a fifth of`, `one tenth`; `two and a half` is 2 1/2
* ordinals: `third` is `3 th` and so is `3rd`; `second` is the unit after a number and after `per`, `each`, `every`
* multiples: `twice` and `thrice` are `2 times` and `3 times`, `double` (doubles, doubled, doubling) is `2 fold`
* decimal places: `tens`, `hundreds`, `tenths` are numbers of their own kind, and so is `units` before `digit`

`one` is 1 but for a pronoun (`no one`, `one can`). The commas of a list are gone by now: "one hundred, fifty" is 150.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

_UNITS = {word: value for value, word in enumerate("one two three four five six seven eight nine".split(), 1)}
_TEENS = {
    word: value
    for value, word in enumerate(
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(), 10
    )
}
_TENS = {
    word: 10 * value for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MULTIPLIERS = {"hundred": 100, "dozen": 12, **_SCALES}

_ORDINALS = {
    **dict(zip("first second third fourth fifth sixth seventh eighth ninth".split(), range(1, 10), strict=True)),
    **{f"{word}th": value for word, value in _TEENS.items() if word != "twelve"},
    "twelfth": 12,
    **{f"{word[:-1]}ieth": value for word, value in _TENS.items()},
    **{f"{word}th": value for word, value in _MULTIPLIERS.items() if word != "dozen"},
}
_PARTS = {f"{word}s": value for word, value in _ORDINALS.items() if value > 2} | {"halves": 2, "quarters": 4}
"""Denominators in the plural."""
_PART = {word: value for word, value in _ORDINALS.items() if value > 2} | {"half": 2, "quarter": 4}
"""In the singular."""
_PLACES = {"tens": "10s", **{f"{word}s": f"{value}s" for word, value in _MULTIPLIERS.items()}}
_ONES = frozenset(("units", "ones", "unit"))
_MULTIPLES = {
    "twice": ("2", "times"),
    "thrice": ("3", "times"),
    **{
        form: (count, "fold")
        for stem, count in (("doubl", "2"), ("tripl", "3"), ("quadrupl", "4"))
        for form in (f"{stem}e", f"{stem}es", f"{stem}ed", f"{stem}ing")
    },
}
_SUFFIXES = frozenset(("st", "nd", "rd", "th"))

_BEFORE_A_PRONOUN = frozenset("no any every each some this that which the another".split())
_AFTER_A_PRONOUN = frozenset("can could may might must should would will has who whose another".split())
_BEFORE_THE_UNIT = frozenset("per each every".split())

_LONGEST = 15
"""Digits of a number that is multiplied by a word; a longer one stays as it is."""

_ANY = frozenset().union(
    ("zero",), _UNITS, _TEENS, _TENS, _MULTIPLIERS, _ORDINALS, _PARTS, _PART, _PLACES, _ONES, _MULTIPLES, _SUFFIXES
)


def in_digits(tokens: Sequence[str]) -> list[str]:
    """The tokens with every number that is written as words in digits; the module's docstring says how.

    Linear in the number of tokens: no reading looks further than one number, and scales in a number get smaller.
    """
    if _ANY.isdisjoint(tokens):
        return list(tokens)
    # Meaningless words are appended, so that no reading has to check for the end.
    read, found, i = [*tokens, "", "", ""], [], 0
    while i < len(tokens):
        written, after = _read(read, i)
        if not written:
            written, after = [read[i]], i + 1
        found += written
        i = after
        # "two and a half" is 2 1/2, as it is in digits.
        if read[i] == "and" and found[-1][0].isdecimal() and _fraction(read, i + 1):
            i += 1
    return found


def _read(tokens: Sequence[str], i: int) -> tuple[list[str], int]:
    """The number that the tokens from `i` on spell, in digits, and where it ends; empty if they spell no number."""
    word = tokens[i]
    if fraction := _fraction(tokens, i):
        value, denominator, after = fraction
        return [value, "/", denominator], after
    if word in _MULTIPLES:
        return list(_MULTIPLES[word]), i + 1
    if word in _ONES:
        return (["1s"], i + 1) if tokens[i + 1] in ("digit", "digits", "place") else ([], i)
    if word in _PLACES:
        return [_PLACES[word]], i + 1
    if word in _PARTS and word not in ("halves", "quarters"):
        return [f"{_PARTS[word]}ths"], i + 1
    if word in _ORDINALS and not (word == "second" and _is_unit(tokens, i)):
        return [str(_ORDINALS[word]), "th"], i + 1
    if word[:1].isdecimal() and tokens[i + 1] in _SUFFIXES:
        return [word, "th"], i + 2
    return _cardinal_or_ordinal(tokens, i)


def _is_unit(tokens: Sequence[str], i: int) -> bool:
    before = tokens[i - 1] if i else ""
    return before in _BEFORE_THE_UNIT or before in _UNITS or before[:1].isdecimal()


def _is_pronoun(tokens: Sequence[str], i: int) -> bool:
    return (i > 0 and tokens[i - 1] in _BEFORE_A_PRONOUN) or tokens[i + 1] in _AFTER_A_PRONOUN


def _cardinal_or_ordinal(tokens: Sequence[str], i: int) -> tuple[list[str], int]:
    if not (cardinal := _cardinal(tokens, i)):
        return [], i
    value, after, places = cardinal
    # Of "twenty first" and "one hundred and first", the last word is an ordinal that fits into the zeros at the end.
    last = after + (tokens[after] == "and" and places >= 100)
    if tokens[after] in _ORDINALS and _ORDINALS[tokens[after]] >= 100:
        return [_digits(value * _ORDINALS[tokens[after]]), "th"], after + 1
    if places >= 10 and _ORDINALS.get(tokens[last], places) < places:
        return [_digits(value + _ORDINALS[tokens[last]]), "th"], last + 1
    if value == 1 and after == i + 1 and tokens[i] == "one" and _is_pronoun(tokens, i):
        return [], i
    return [_digits(value)], after


def _digits(value: Decimal) -> str:
    return f"{value.normalize():f}"


def _fraction(tokens: Sequence[str], i: int) -> tuple[str, str, int] | None:
    """Numerator, denominator and end of a fraction in words that begins at `i`."""
    article = tokens[i] in ("a", "an")
    word, after = tokens[i + article], i + article + 1
    if word in ("half", "quarter"):
        if word == "half" and tokens[after + (tokens[after] in ("a", "an"))] in _MULTIPLIERS:
            return None  # half a dozen
        return "1", str(_PART[word]), after
    if article:
        return ("1", str(_PART[word]), after) if word in _PART and tokens[after] == "of" else None
    if _is_short_integer(word):
        numerator, after = Decimal(word), i + 1
    elif cardinal := _cardinal(tokens, i):
        numerator, after, _ = cardinal
    else:
        return None
    part = tokens[after]
    denominator = _PARTS.get(part) or (_PART.get(part) if numerator == 1 and _PART.get(part, 100) < 100 else None)
    return (_digits(numerator), str(denominator), after + 1) if denominator else None


def _is_short_integer(word: str) -> bool:
    return word.isdecimal() and len(word) <= _LONGEST


def _cardinal(tokens: Sequence[str], i: int) -> tuple[Decimal, int, int] | None:
    """Value and end of a cardinal that begins at `i`, and the unit of its last word: 10 for "twenty", 1 for "six".

    Digits, `half` and an article only count with a following word like `million`.
    """
    word, after = tokens[i], i + 1
    if word == "zero":
        return Decimal(0), after, 1
    if word in ("a", "an") and tokens[after] in _MULTIPLIERS:
        return _in_words(tokens, after)
    if word[:1].isdecimal() and len(word) <= _LONGEST:
        value = Decimal(word)
    elif word == "half" or (word in ("a", "an") and tokens[after] == "half"):
        value, after = Decimal("0.5"), after + (word != "half")
        after += tokens[after] in ("a", "an")
    else:
        return _in_words(tokens, i)
    if tokens[after] not in _MULTIPLIERS:
        return None
    while tokens[after] in _MULTIPLIERS and after < i + 4:  # three hundred thousand
        value, after = value * _MULTIPLIERS[tokens[after]], after + 1
    return value, after, 1


def _in_words(tokens: Sequence[str], i: int) -> tuple[Decimal, int, int] | None:
    """The same for words only; scales decrease within a number."""
    total, limit, after, places = 0, 10**15, i, 1
    while True:
        group = _below_thousand(tokens, after + (tokens[after] == "and" and after > i))
        if group is None:
            break
        value, end, of_group = group
        scale = _SCALES.get(tokens[end], 1)
        if value * scale >= limit:
            break
        total, after, limit = total + value * scale, end + (scale > 1), scale
        places = scale if scale > 1 else of_group
        if scale == 1:
            break
    return (Decimal(total), after, places) if after > i else None


def _below_thousand(tokens: Sequence[str], i: int) -> tuple[int, int, int] | None:
    """Value, end and places of what precedes a scale; 1 for a bare scale."""
    if tokens[i] in _SCALES:
        return 1, i, 1
    value, after, places = _below_hundred(tokens, i) or (1, i, 1)
    if tokens[after] == "dozen":
        return 12 * value, after + 1, 1
    if tokens[after] != "hundred":
        return (value, after, places) if after > i else None
    value, after, places = 100 * value, after + 1, 100
    rest = _below_hundred(tokens, after + (tokens[after] == "and"))
    # "One hundred and two hundred" are two numbers.
    if rest and tokens[rest[1]] not in ("hundred", "dozen"):
        return value + rest[0], rest[1], rest[2]
    return value, after, places


def _below_hundred(tokens: Sequence[str], i: int) -> tuple[int, int, int] | None:
    word = tokens[i]
    if word in _TENS:
        unit = _UNITS.get(tokens[i + 1], 0)
        return _TENS[word] + unit, i + 1 + (unit > 0), 1 if unit else 10
    if word in _UNITS or word in _TEENS:
        return _UNITS.get(word) or _TEENS[word], i + 1, 1
    return None
