r"""The strict rule: two answers are equal if their normal forms are; cheap enough for every training response.

It rewrites notation and computes nothing but plain fractions (`fractions.Fraction`, never floats), so that it is linear
in the length of the answer and never calls a wrong answer right. What it does not know it compares as text. The normal
form of an answer has three parts:

    label   x =, f(x) =, y \in      may be left out in one of two answers, but not differ
    value   numbers exactly (0.5 = 1/2 = \frac12 = 50/100); sets and bare lists without order and repetition; tuples and
            intervals by their brackets, part by part; a \pm b as two values; anything else as text
    unit    a word after the value, \text{cm^2}, %, a degree sign, a currency sign; as with labels. A percent sign is a
            unit like any other: 50\% equals 50 and 50 percent, not 0.5.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

MAX_LENGTH = 2000
"""Longer answers, in characters, are compared as they are (and are not shown to math_verify)."""
MAX_DIGITS = 400
"""Longer numbers are text: exact arithmetic must stay cheap."""
MAX_EXPONENT = 100
"""Largest power of ten that scientific notation is expanded to."""

_SYMBOLS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "‐": "-",
        "⁄": "/",
        "∕": "/",
        "÷": "/",
        "×": r"\times ",
        "·": r"\cdot ",
        "⋅": r"\cdot ",
        "∙": r"\cdot ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "√": r"\sqrt ",
        "°": r"^{\circ}",
        "º": r"^{\circ}",
        "±": r"\pm ",
        "∓": r"\mp ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "∈": r"\in ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "∅": r"\emptyset ",
        "ℝ": r"\mathbb{R}",
        "ℤ": r"\mathbb{Z}",
        "ℕ": r"\mathbb{N}",
        "θ": r"\theta ",
        "α": r"\alpha ",
        "β": r"\beta ",
        "λ": r"\lambda ",
        "′": "'",
        "’": "'",
        "“": '"',
        "”": '"',
    }
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_VULGAR = re.compile("[¼½¾⅐-⅞]")
_PLAIN_MIXED = re.compile(r"\s*([-+]?\d+) +(\d+)/(\d+)\s*", re.ASCII)
_E_NOTATION = re.compile(r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+))[eE]([-+]?\d+)\s*", re.ASCII)
_ROOT = re.compile(r"\\sqrt (\d+|[A-Za-z])(?![\d])")


def to_latex(answer: str) -> str:
    """An answer with the notation of plain text as LaTeX, and full-width characters as ASCII; both graders read this.

    Unicode symbols, and as the whole of an answer 2 1/2 (a mixed number) and 1.5e-3.
    """
    if plain := _PLAIN_MIXED.fullmatch(answer):
        return r"{}\frac{{{}}}{{{}}}".format(*plain.groups())
    if plain := _E_NOTATION.fullmatch(answer):
        return r"{}\times 10^{{{}}}".format(*plain.groups())
    if answer.isascii():
        return answer
    answer = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run.group().translate(_SUPERSCRIPTS) + "}", answer)
    answer = _SUBSCRIPT_RUN.sub(lambda run: "_{" + run.group().translate(_SUBSCRIPTS) + "}", answer)
    answer = _VULGAR.sub(_vulgar_fraction, answer)
    answer = unicodedata.normalize("NFKC", answer.translate(_SYMBOLS)).translate(_SYMBOLS)
    return _ROOT.sub(r"\\sqrt{\1}", answer)


def _vulgar_fraction(character: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", character.group()).partition("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}"


# ---- notation --------------------------------------------------------------------------------------------------------

_REPLACED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\\(?![A-Za-z])", "¶"),  # a line break, before its second backslash is taken for a space's
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|boldsymbol|mathbf|bf|it|rm)(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:textbf|textit|textrm|textnormal|mathrm|mathit|mathsf|mbox|operatorname|emph)\s*\{", r"\\text{"),
        (r"\\le(?:q|qslant)(?![A-Za-z])|<=", r"\\le "),
        (r"\\ge(?:q|qslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\lbrack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])", "*"),
        (r"\\degree(?![A-Za-z])|\^\{?\\circ\}?", "°"),
        (r"\\infinity(?![A-Za-z])|(?<![A-Za-z\\])(?:infinity|inf)(?![A-Za-z])", r"\\infty "),
        (r"\{,\}|\\!,|,\\!", ","),
        (r"\\%", "%"),
        (r"\\\$|\\text\{\s*\$\s*\}", "¤"),
        (r"\\[()]|\\\[|\\\]|\$", ""),
        (r"\\[,;:!> ]|~|\\q?quad(?![A-Za-z])", " "),
        # \frac12, \frac1{72}, \sqrt2: an argument without braces is one character.
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9A-Za-z])", r"\1{\2}"),
        (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
        (r"([\^_])(-?\d+|[A-Za-z])", r"\1{\2}"),
        # The words between two answers; two letters of a word are never apart.
        (r",?\s*(?:\\text\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\{])(?:and|or)(?![A-Za-z}]))\s*", ", "),
    )
]
_PERIOD = re.compile(r"(?<!\.) ?\.$")
_SPACES = re.compile(r"\s+")
# A space means something between two digits, and between a command and a letter; nowhere else.
_LOOSE_SPACE = re.compile(r"(\\[A-Za-z]+ (?=[A-Za-z])|\d (?=\d))| ")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")

_WORDS = (
    "degrees?|percent|percentage|dollars?|cents?|euros?|pounds?|"
    "(?:square |cubic |sq\\.? ?|cu\\.? ?)?(?:units?|inch(?:es)?|in|foot|feet|ft|yards?|yd|miles?|mi|[kcmdn]m|"
    "(?:centi|kilo|milli|deci)?(?:met(?:er|re))s?|kg|mg|(?:kilo)?grams?|lit(?:er|re)s?|m?L)|"
    "mph|km/h|m/s|seconds?|sec|minutes?|min|hours?|hrs?|days?|weeks?|months?|years?|people|students?|ways?"
)
_UNIT = re.compile(
    rf"(.*[\d)}}])\s*(?:\\text\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}|({_WORDS}))(\^\{{\d\}})?|(.*\S)\s*([%°¤])|([¤£€¥])(.+)"
)
_UNITLESS = re.compile(r"\\(?:frac|sqrt|pi|pm)(?![A-Za-z])|[^A-Za-z\\]")
_NO_UNIT = re.compile(
    "hundred|thousand|million|billion|trillion|dozen|more|less|fewer|least|most|mod|base|remainder", re.IGNORECASE
)
"""Words behind a number that change it."""
_ALIASES = {"percent": "%", "percentage": "%", "degree": "°", "dollar": "¤", "feet": "foot", "ft": "foot"}
_ALIASES |= {"inche": "inch", "in": "inch"}
_LABEL = re.compile(
    r"([A-Za-z](?:_\{\w+\})?(?:\([A-Za-z]\))?|(?:\\angle ?)?[A-Z]{2,4}|\\[a-z]+) ?(?:=|\\in(?![A-Za-z]))([^=]*)"
)
_OPERATORS = {r"\in", r"\le", r"\ge", r"\ne", r"\pm", r"\mp", r"\frac", r"\sqrt", r"\text", r"\cup", r"\cap"}

# ---- values ----------------------------------------------------------------------------------------------------------

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_PLAIN = re.compile(rf"([-+]?)({_NUMBER})(?:/({_NUMBER}))?")
_FRAC = re.compile(rf"([-+]?)(\d*)\\frac\{{([-+]?)({_NUMBER})\}}\{{([-+]?)({_NUMBER})\}}")
_SCIENTIFIC = re.compile(rf"([-+]?(?:{_NUMBER}))\*10\^\{{([-+]?\d+)\}}")
_POWER_OF_TEN = re.compile(r"([-+]?)10\^\{([-+]?\d+)\}")
_TERM = re.compile(r"(-?)\\frac\{((?:\\[A-Za-z]+ ?|[0-9A-Za-z])+)\}\{(\d+|[A-Za-z]|\\[A-Za-z]+)\}")
_DELIMITER = re.compile(r"(\\\{|\\\}|[()\[\],;]|\\cup(?![A-Za-z]))")
_OPEN, _CLOSE = {"(", "[", r"\{", "{", r"\text{"}, {")", "]", r"\}", "}"}
_STRUCTURE = re.compile(r"\\text\{|\\[{}]|\\[A-Za-z]+|[()\[\]{},;]")
_WORDS_ONLY = re.compile(r"(?:[A-Za-z][a-z]{2,}|[Nn]o)(?: [A-Za-z]?[a-z]+)*")


class _Answer(NamedTuple):
    label: str
    value: str
    unit: str


def canonical(answer: str) -> str:
    """The normal form of an answer, one line of text: answers with the same one are equal."""
    label, value, unit = _normal(answer)
    return (f"{label}=" if label else "") + value + (f" {unit}" if unit else "")


def equal(a: str, b: str) -> bool:
    """Whether two answers are equal by the strict rule; symmetric. Empty answers equal nothing."""
    left, right = _normal(a), _normal(b)
    return bool(
        left.value
        and left.value == right.value
        and (left.unit == right.unit or not (left.unit and right.unit))
        and (left.label == right.label or not (left.label and right.label))
    )


def number(answer: str) -> Fraction | None:
    """The value of an answer that is a plain number without label and unit, else None."""
    label, value, unit = _normal(answer)
    plain = None if label or unit or len(value) > MAX_DIGITS else _PLAIN.fullmatch(value)
    return Fraction(value) if plain else None


@lru_cache(maxsize=4096)
def _normal(answer: str) -> _Answer:
    answer = answer.strip()
    if len(answer) > MAX_LENGTH:
        return _Answer("", answer, "")
    text = to_latex(answer)
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    text = _SPACES.sub(" ", text).strip().rstrip(",;")
    text = _PERIOD.sub("", text).strip()
    label = ""
    if (found := _LABEL.fullmatch(text)) and found.group(1) not in _OPERATORS:
        label, text = found.group(1), found.group(2).strip()
    text, unit = _split_unit(text)
    return _Answer(label, _value(text), unit)


def _split_unit(text: str) -> tuple[str, str]:
    found = _UNIT.fullmatch(text)
    if not found:
        return text, ""
    before, command, word, power, signed, sign, currency, after = found.groups()
    value, name = before or signed or after, command or word or sign or currency
    # Behind letters a word may be a variable, and sin 30 is not sin 30 degrees.
    if _UNITLESS.sub("", value) or _NO_UNIT.search(name):
        return text, ""
    name = "".join(character for character in name if not character.isspace() and character != ".")
    name = name.casefold() if len(name) > 3 else name  # Hours, but not mW and MW
    name = name.rstrip("s") if len(name) > 2 else name
    return value.strip(), _ALIASES.get(name, name) + (power or "")


def _value(text: str) -> str:
    if (inner := _inside(text, r"\text{", "}")) is not None:
        text = inner.strip()
    if _THOUSANDS.fullmatch(text):
        return _scalar(text.replace(",", "").replace(" ", ""))
    if _WORDS_ONLY.fullmatch(text):
        text = text.casefold()
    text = _LOOSE_SPACE.sub(r"\1", text)
    braced = _inside(text, r"\{", r"\}")
    if braced is None and (inner := _inside(text, "{", "}")) is not None:  # a group, or a set in plain text
        text = inner
    items = _split(text if braced is None else braced)
    if braced is None and len(items) == 1 and r"\pm" not in text:
        inner = _inside(text, "(", ")")
        if inner is not None and len(_split(inner)) == 1:  # redundant parentheses, and (A)
            text = inner
        return _parts(text)
    values = {value for item in items for value in _branches(item)}
    return r"\{" + ",".join(sorted(_parts(value) for value in values)) + r"\}"


def _inside(text: str, opening: str, closing: str) -> str | None:
    """What stands between the brackets that enclose all of `text`, or None."""
    if not (text.startswith(opening) and text.endswith(closing)) or len(text) < len(opening) + len(closing):
        return None
    depth = 0
    for token in _STRUCTURE.finditer(text):
        depth += (token.group() in _OPEN) - (token.group() in _CLOSE)
        if depth == 0:
            return text[len(opening) : token.start()] if token.end() == len(text) else None
    return None


def _split(text: str) -> list[str]:
    """The parts of a bare list: `text` at the commas and semicolons that are within no bracket."""
    depth, start, items = 0, 0, []
    for token in _STRUCTURE.finditer(text):
        depth += (token.group() in _OPEN) - (token.group() in _CLOSE)
        if depth == 0 and token.group() in (",", ";"):
            items.append(text[start : token.start()])
            start = token.end()
    return [*items, text[start:]]


def _branches(item: str) -> tuple[str, ...]:
    r"""a \pm b as its two values; anything else as it is."""
    before, sign, after = item.partition(r"\pm")
    if not sign or r"\pm" in after or r"\mp" in after:
        return (item,)
    after = after.lstrip()
    return (f"{before}+{after}" if before else after, f"{before}-{after}")


def _parts(text: str) -> str:
    """`text` with every scalar in its normal form that brackets and commas set off on both sides."""
    pieces = ["", *_DELIMITER.split(text), ""]
    for i in range(1, len(pieces), 2):
        if pieces[i - 1] not in _CLOSE and pieces[i + 1] not in _OPEN:
            pieces[i] = _scalar(pieces[i])
    return "".join(pieces)


def _scalar(text: str) -> str:
    if (inner := _inside(text, r"\text{", "}")) is not None:
        text = inner.strip()
    if len(text) > MAX_DIGITS:
        return text
    try:
        if found := _PLAIN.fullmatch(text):
            sign, top, bottom = found.groups()
            return str(Fraction(sign + top) / Fraction(bottom or 1))
        if found := _FRAC.fullmatch(text):
            sign, whole, top_sign, top, bottom_sign, bottom = found.groups()
            fraction = Fraction(top_sign + top) / Fraction(bottom_sign + bottom)
            if not whole:
                return str(-fraction if sign == "-" else fraction)
            if 0 < fraction < 1:  # a mixed number; other factors before a fraction stay text
                return str((int(whole) + fraction) * (-1 if sign == "-" else 1))
            return text
    except ZeroDivisionError:
        return text
    if found := _SCIENTIFIC.fullmatch(text):
        return _power_of_ten(Fraction(found.group(1)), found.group(2)) or text
    if found := _POWER_OF_TEN.fullmatch(text):
        return _power_of_ten(Fraction(f"{found.group(1)}1"), found.group(2)) or text
    if found := _TERM.fullmatch(text):
        return "{}{}/{}".format(*found.groups())
    if _WORDS_ONLY.fullmatch(text):
        return text.casefold()
    return text.removeprefix("+")


def _power_of_ten(mantissa: Fraction, exponent: str) -> str | None:
    if len(exponent) > 4 or abs(int(exponent)) > MAX_EXPONENT:
        return None
    return str(mantissa * Fraction(10) ** int(exponent))
