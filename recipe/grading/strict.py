r"""The strict rule: two answers are equal if their normal forms are; cheap enough for every training response.

It rewrites notation and only computes plain fractions (`fractions.Fraction`, never floats), so that it is linear in the
length of the answer (tests/unit/grading/test_patterns.py proves it for every pattern) and never accepts a wrong answer.
What it does not know it compares as text. The normal form of an answer has three parts:

    label   x =, f(x) =, y \in      may be left out in one of two answers, but not differ
    value   numbers exactly (0.5 = 1/2 = \frac12 = 50/100); sets and bare lists without order and repetition; tuples and
            intervals by their brackets, part by part; a \pm b as two values; anything else as text
    unit    cm, \text{ cm}^2, miles per hour, %, a degree sign, a currency sign: the words and symbols that
            `recipe.grading.units` lists, and no others; as with labels. A percent sign is a unit like any other: 50\%
            equals 50 and 50 percent, not 0.5.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from recipe.grading import units
from recipe.grading.notation import to_latex

MAX_LENGTH = 2000
"""Longer answers, in characters, are compared as they are (and are not passed to math_verify)."""
MAX_DIGITS = 400
"""Longer numbers are treated as text: exact arithmetic must stay cheap."""
MAX_EXPONENT = 100
"""Largest power of ten that scientific notation is expanded to."""

# ---- notation --------------------------------------------------------------------------------------------------------

_REPLACED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\\(?![A-Za-z])", "¶"),  # a line break, before its second backslash is taken as that of a space
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
    )
]
_SPACES = re.compile(r"\s+")
# The words between two answers; letters of a word are never separated. Spaces are already single here.
_CONJUNCTION = re.compile(r",? ?(?:\\text\{ ?(?:and|or) ?\}|(?<![A-Za-z\\{])(?:and|or)(?![A-Za-z}])) ?")
_PERIOD = re.compile(r"(?<!\.) ?\.$")
# A space is only significant between two digits, and between a command and a letter.
_LOOSE_SPACE = re.compile(r"(\\[A-Za-z]+ (?=[A-Za-z])|\d (?=\d))| ")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")

_BARE_WORD = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_LETTERS = re.compile("[A-Za-z]+")
_GLUED = {"cm", "mm", "km", "kg", "mL", "ml", "ft"}
"""Units that the evaluation also reads without a space, 5cm; other pairs of letters are more likely variables: 2mg."""
_FORMULA = re.compile(r"[\\{]")
_SIDES = re.compile(r"=|\\(?:approx|simeq|doteq)(?![A-Za-z])")
_SCALE = re.compile(r"(?:\\text\{ ?)?([CF])(?:elsius|ahrenheit)?(?: ?\})?")
_IN_VALUES = {r"\frac", r"\sqrt", r"\pi", r"\pm"}
"""Commands in values that a unit may follow: sin 30 is not sin 30 degrees."""
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi|varphi|chi|psi|omega|ell"
)
_LABEL = re.compile(
    r"([A-Za-z](?:_\{(?:\w+|\\text\{\w+\})\})?(?:\([A-Za-z]\))?|(?:\\angle ?)?[A-Z]{2,4}"
    rf"|\\(?:{_GREEK})) ?(?:=|\\in(?![A-Za-z]))([^=]*)"
)

# ---- values ----------------------------------------------------------------------------------------------------------

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_PLAIN = re.compile(rf"([-+]?)({_NUMBER})(?:/({_NUMBER}))?")
_FRAC = re.compile(rf"([-+]?)(\d*)\\frac\{{([-+]?)({_NUMBER})\}}\{{([-+]?)({_NUMBER})\}}")
_SCIENTIFIC = re.compile(rf"([-+]?(?:{_NUMBER}))\*10\^\{{([-+]?\d+)\}}")
_POWER_OF_TEN = re.compile(r"([-+]?)10\^\{([-+]?\d+)\}")
# Commands, letters and digits; the end of a command is unambiguous, or matching would take exponential time.
_FACTORS = r"[0-9A-Za-z]*(?:\\[A-Za-z]+(?: [0-9A-Za-z]*|[0-9][0-9A-Za-z]*)?)*"
_TERM = re.compile(rf"(-?)\\frac\{{(?!\}})({_FACTORS})\}}\{{(\d+|[A-Za-z]|\\[A-Za-z]+)\}}")
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\(?:overline|bar)\{(\d+)\}")
_DELIMITER = re.compile(r"(\\\{|\\\}|[()\[\],;]|\\cup(?![A-Za-z]))")
_OPEN, _CLOSE = {"(", "[", r"\{", "{", r"\text{"}, {")", "]", r"\}", "}"}
_STRUCTURE = re.compile(r"\\text\{|\\[{}]|\\[A-Za-z]+|[()\[\]{},;]")
_WORDS_ONLY = re.compile(r"(?:[A-Za-z][a-z]{2,}|[Nn]o)(?: [A-Z]?[a-z]+)*")


class Form(NamedTuple):
    """The normal form of an answer; a missing part is "" or None."""

    label: str
    value: str
    unit: units.Unit | None

    @property
    def unit_name(self) -> str:
        """The unit's name, "" without one."""
        return self.unit.name if self.unit else ""

    def __str__(self) -> str:
        label = f"{self.label}=" if self.label else ""
        return label + self.value + (f" {self.unit_name}" if self.unit_name else "")


def canonical(answer: str) -> str:
    """The normal form of an answer as one line of text: answers with the same line are equal."""
    return str(normal_form(answer))


def equal(a: str, b: str) -> bool:
    """Whether two answers are equal by the strict rule; symmetric. Empty answers equal nothing."""
    return same(normal_form(a), normal_form(b))


def same(left: Form, right: Form) -> bool:
    """`equal` of two answers by their normal forms."""
    return bool(
        left.value
        and left.value == right.value
        and (left.unit is None or right.unit is None or units.same(left.unit, right.unit))
        and (left.label == right.label or not (left.label and right.label))
    )


def units_differ(a: str, b: str) -> bool:
    """Whether two answers have units of measure, and not the same: 5 cm and 5 m, but not 5 students and 5 people.

    The units of the evaluation, `likely_unit`.
    """
    left, right = likely_unit(a), likely_unit(b)
    if left is None or right is None or not (left.measure and right.measure) or units.same(left, right):
        return False
    degrees = left.name.startswith("°") and right.name.startswith("°")
    return not (degrees and "°" in (left.name, right.name))  # 25 degrees, and 25 degrees Celsius


def likely_unit(answer: str) -> units.Unit | None:
    r"""The unit of an answer in the evaluation, of the last side of an equation.

    Behind a plain number that is also a single letter after a space, 5 m, and some pairs of letters without one, 5cm.
    The strict rule takes these for products, and so does everything behind a formula: 2\pi m, \sqrt{3} m.
    """
    if len(answer) > MAX_LENGTH:
        return None
    last_side = _SIDES.split(_rewritten(answer))[-1].strip()
    return normal_form(answer).unit or split_unit(last_side, likely=True)[1]


def number(form: Form) -> Fraction | None:
    """The value of an answer that is a plain number without label and unit, else None; 1/0 is not a number."""
    plain = None if form.label or form.unit or len(form.value) > MAX_DIGITS else _PLAIN.fullmatch(form.value)
    if plain is None:
        return None
    sign, top, bottom = plain.groups()
    denominator = Fraction(bottom or 1)
    return Fraction(sign + top) / denominator if denominator else None


@lru_cache(maxsize=4096)
def normal_form(answer: str) -> Form:
    """The normal form of an answer; the module's docstring has its parts."""
    answer = answer.strip()
    if len(answer) > MAX_LENGTH:
        return Form("", answer, None)
    text = _CONJUNCTION.sub(", ", _rewritten(answer))
    label = ""
    if found := _LABEL.fullmatch(text):
        label, text = found.group(1), found.group(2).strip()
    text, unit = split_unit(text)
    return Form(label, _value(text), unit)


def _rewritten(answer: str) -> str:
    """An answer in this module's notation."""
    text = to_latex(answer)
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    text = _SPACES.sub(" ", text).strip().rstrip(",;")
    return _PERIOD.sub("", text).strip()


def split_unit(text: str, likely: bool = False) -> tuple[str, units.Unit | None]:
    """An answer in this module's notation as its value and its unit, if a listed unit is all that follows a value.

    `likely`: the unit may be one that is only likely (`likely_unit`).
    """
    # A word before it may be a variable, and sin 30 is not sin 30 degrees.
    begin = next((word.start() for word in _BARE_WORD.finditer(text) if word.group() not in _IN_VALUES), len(text))
    if begin == len(text):
        if text[:1] in ("¤", "£", "€", "¥") and len(text) > 1:
            return text[1:].strip(), units.parse(text[0])
        if text[-1:] in ("%", "°", "¤") and len(text) > 1:
            return text[:-1].strip(), units.parse(text[-1])
    before, behind = text[:begin].rstrip(), text[begin:]
    if before.endswith("°") and (scale := _SCALE.fullmatch(behind)):
        return before[:-1].rstrip(), units.Unit(f"°{scale[1]}", True)
    if not before.endswith((*"0123456789)}", r"\pi")):
        return text, None
    if bare := _LETTERS.match(behind):
        letters, spaced = bare.group(), begin > len(before)
        # 3m, 3nm and 3 m are products of variables; 3 nm, 3 cm, 3inches and 3 m/s are not.
        product = len(letters) <= 2 and not spaced or len(letters) == 1 and not behind.startswith("/", bare.end())
        if product and not (likely and (spaced or letters in _GLUED) and not _FORMULA.search(before)):
            return text, None
    unit = units.parse(behind)
    return (before, unit) if unit else (text, None)


def _value(text: str) -> str:
    if (inner := _inside(text, r"\text{", "}")) is not None:
        text = _PERIOD.sub("", inner.strip())
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
    """The content of the brackets that enclose all of `text`, or None."""
    if not (text.startswith(opening) and text.endswith(closing)) or len(text) < len(opening) + len(closing):
        return None
    depth = 0
    for token in _STRUCTURE.finditer(text):
        depth += (token.group() in _OPEN) - (token.group() in _CLOSE)
        if depth == 0:
            return text[len(opening) : token.start()] if token.end() == len(text) else None
    return None


def _split(text: str) -> list[str]:
    """The parts of a bare list: `text` split at the commas and semicolons outside all brackets."""
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
    """`text` with every scalar between brackets or commas in its normal form."""
    pieces = ["", *_DELIMITER.split(text), ""]
    for i in range(1, len(pieces), 2):
        if pieces[i - 1] not in _CLOSE and pieces[i + 1] not in _OPEN:
            pieces[i] = _scalar(pieces[i])
    return "".join(pieces)


def _scalar(text: str) -> str:
    if (inner := _inside(text, r"\text{", "}")) is not None:
        text = _PERIOD.sub("", inner.strip())
    if len(text) > MAX_DIGITS:
        return text
    if found := _REPEATING.fullmatch(text):
        return str(repeating_decimal(*found.groups()))
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


def repeating_decimal(sign: str, whole: str, digits: str, period: str) -> Fraction:
    """The value of sign whole.digits followed by the repeating digits: -1.2 and 3 is -1.2333... = -37/30."""
    beginning = int(sign + (whole + digits or "0") + period) - int(sign + (whole + digits or "0"))
    return Fraction(beginning, (10 ** len(period) - 1) * 10 ** len(digits))


def _power_of_ten(mantissa: Fraction, exponent: str) -> str | None:
    if len(exponent) > 4 or abs(int(exponent)) > MAX_EXPONENT:
        return None
    return str(mantissa * Fraction(10) ** int(exponent))
