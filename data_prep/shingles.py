"""Tokens for comparing problem texts, independent of spelling.

`tokens` undoes what an editor may change without changing a problem: Unicode forms (NFKC), case, white space, `$`,
LaTeX spacing, sizing and fonts, punctuation, and spellings of one thing (`≤` and `\\leq`, `\\tfrac12`,
`\\frac{1}{2}` and `1/2`, `1,000` and `1000`, `nine hundred` and `900` (`data_prep.number_words`), `largest` and
`maximum`). Chinese, Japanese and Korean text has no spaces: there every character is a token.

Two texts that differ only in one number are different problems. So some tokens matter more than others: `formal`
selects those of which none may differ between near-duplicates.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from data_prep.number_words import in_digits

# One token for several spellings. A token that begins with a backslash is formal, see `is_formal`.
_SPELLINGS = {
    "\\le": "≤ ≦ ⩽ \\leq \\leqq \\leqslant <=",
    "\\ge": "≥ ≧ ⩾ \\geq \\geqq \\geqslant >=",
    "\\neq": "≠ \\ne !=",
    "\\times": "×",
    "\\cdot": "· ⋅ ∙",
    "*": "∗",
    "/": "÷ ∕ ⁄ \\div \\frac \\dfrac \\tfrac \\cfrac",
    "%": "\\% percent",
    "°": "degree degrees",
    "|": "∣ \\mid \\vert \\lvert \\rvert",
    "\\sqrt": "√",
    "\\infty": "∞",
    "\\pm": "±",
    "\\in": "∈",
    "\\cap": "∩",
    "\\cup": "∪",
    "\\angle": "∠",
    "\\triangle": "△",
    "\\perp": "⊥",
    "\\lfloor": "⌊",
    "\\rfloor": "⌋",
    "\\parallel": "∥",
    "\\to": "→ \\rightarrow",
    "\\phi": "\\varphi ϕ",
    "\\epsilon": "\\varepsilon ϵ",
    "\\sum": "∑ sum",
    "\\prod": "∏ product",
    "\\max": "max maximum maximal largest greatest biggest highest longest most 最大",
    "\\min": "min minimum minimal smallest least lowest shortest fewest 最小",
    "\\more": "more greater larger bigger",
    "\\less": "less fewer smaller",
    "\\not": "not no without",
    "2": "二 两",
    "3": "三",
    "4": "四",
    "5": "五",
    "6": "六",
    "7": "七",
    "8": "八",
    "9": "九",
    "10": "十",
    "100": "百",
    "1000": "千",
    "10000": "万",
    "100000000": "亿",
}

# Words that turn the same set-up into a different problem: what is asked for, and of what kind it is.
_DECIDING = """
    sin cos tan cot sec csc log ln exp mod gcd lcm lim det
    odd even prime composite positive negative nonnegative rational irrational real complex
    increasing decreasing inside outside inscribed circumscribed convex concave up down left right remain remaining
    difference quotient remainder ratio mean median mode range variance probability
    area perimeter circumference volume radius diameter length width height slope
    last
"""

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu "
    "nu xi omicron pi rho ς sigma tau upsilon phi chi psi omega"
)

_CANONICAL = {
    **{spelling: token for token, spellings in _SPELLINGS.items() for spelling in spellings.split()},
    **{word: f"\\{word}" for word in _DECIDING.split()},
    **{chr(ord("α") + i): f"\\{name}" for i, name in enumerate(_GREEK.split())},
}

# English words of one and two letters; every other token this short is the name of a variable, a segment or a unit.
_SHORT_WORDS = frozenset("a i am an as at be by do go he if in is it me my no of on or so to up us we".split())

# Layout: these commands are dropped, and their argument is kept.
_LAYOUT = frozenset(
    f"\\{name}"
    for name in """
    left right big bigg bigl bigr biggl biggr middle displaystyle textstyle limits nolimits quad qquad hspace vspace
    text textrm textbf textit mathrm mathbf mathit mathbb mathcal mathsf boldsymbol bm operatorname mbox hbox
    begin end hline nonumber label dots ldots cdots dotsb dotsc vdots ddots colon
    """.split()
)
_ARGUMENT_OF_LAYOUT = re.compile(
    r"\\(?:text(?:rm|bf|it)?|math(?:rm|bf|it|bb|cal|sf)|boldsymbol|bm|operatorname|mbox|hbox)\s*\{([^{}]*)\}"
)

# Minus signs, apostrophes, and zero-width characters, which occur inside words.
_SAME_CHARACTER = str.maketrans("−‐–’‘′", "---'''", "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ]+")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")  # 3½ is not 31/2
_FIGURE_MARK = re.compile(r"\[/?asy\]")
_DEGREE, _PRIME = (re.compile(rf"\^\s*(?:\\{name}(?![a-z])|\{{\s*\\{name}\s*\}})") for name in ("circ", "prime"))
# Not after an opening bracket or before a closing one: f(1,100) has two arguments.
_GROUPED_DIGITS = re.compile(r"(?<![\d.,(\[{])\d{1,3}(?:(?:,\\!|,|\{,\}|\\[,!])\d{3})+")
_HALF_A_FRACTION = re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)")
# One token, so that a_{1} is a_1; but x^{2y} is not x^2y, nor x^{ab} x^ab.
_ONE_IN_BRACES = re.compile(r"(?<!\\)\{\s*(\d+|[^\W\d_]|(?<![\^_]\{)[^\W\d_]+|\\[a-z]+)\s*\}")
_FRACTION = re.compile(r"\\[dtc]?frac\s+([^\W_]+|\\[a-z]+)\s+([^\W_]+|\\[a-z]+)(?!\w)")  # braces are already removed
# The hyphen of "5-digit", "$n$-gon" and "non-zero", which is not a minus.
_HYPHEN = re.compile(r"(?<=[\w}])(?:\$|\\\))?-(?=[^\W\d_]{3})")

_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = rf"[^\W\d_{_IDEOGRAPH}]"
_IS_IDEOGRAPH = re.compile(f"[{_IDEOGRAPH}]").match
_TOKEN = re.compile(
    rf"""
      \\[a-z]+ | \\.                               # commands, \{{ and \|, spacing
    | \d+(?:\.\d+)? | (?<![\w.])\.\d+
    | 最[大小] | [{_IDEOGRAPH}]
    | {_LETTER}+(?:'{_LETTER}+)?
    | (?<!{_LETTER}{_LETTER})(?<={_LETTER})['!]+     # f', n! but not "students'" nor "Go!"
    | (?<=[\d)\]}}])!{{1,9}}(?!=)
    | [<>!]= | [^\s\w,.;:?!$'"`~&\#\\_“”…—、。《》「」]   # any other symbol
    """,
    re.VERBOSE,
)
_SPACING = frozenset("\\" + c for c in ",!;: ()[]\\&_#$")


def tokens(text: str, figures: bool = True) -> list[str]:
    """The tokens of a problem text; the module's docstring says what they disregard.

    Args:
        figures: whether the code between [asy] and [/asy] counts.
    """
    text = _SUPERSCRIPT.sub(r"^\g<0>", _VULGAR_FRACTION.sub(r" \g<0>", text))
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_SAME_CHARACTER).split())
    if not figures:
        text = _without_figures(text)
    if "\\" in text or "{" in text:
        text = _DEGREE.sub("°", text)
        text = _PRIME.sub("'", text)
        text = _ARGUMENT_OF_LAYOUT.sub(r" \1 ", text)
        text = _HALF_A_FRACTION.sub(r"\\frac \1 \2 ", text)
        text = _ONE_IN_BRACES.sub(r" \1 ", text)
        text = _FRACTION.sub(r" \1 / \2 ", text)
    text = _HYPHEN.sub(" ", _GROUPED_DIGITS.sub(_digits, text))
    found = (t for t in _TOKEN.findall(text) if t not in _LAYOUT and t not in _SPACING)
    return [f"0{t}" if t[0] == "." else _CANONICAL.get(t, t) for t in in_digits(list(found))]


def _without_figures(text: str) -> str:
    """The text with each [asy]...[/asy] that contains no other [asy] replaced by a space."""
    pieces, end, opened = [], 0, None
    for mark in _FIGURE_MARK.finditer(text):
        if mark.group() == "[asy]":
            opened = mark.start()
        elif opened is not None:
            pieces.append(text[end:opened])
            end, opened = mark.end(), None
    return " ".join([*pieces, text[end:]])


def _digits(grouped: re.Match[str]) -> str:
    """1,234,567 without its separators; a last group before another digit or a closing bracket stays apart."""
    number, rest = grouped.group(), ""
    follower = grouped.string[grouped.end() : grouped.end() + 1]
    if follower.isdecimal() or follower in tuple(")]}"):
        end = len(number) - 3
        while not number[end - 1].isdecimal():
            end -= 1
        number, rest = number[:end], number[end:]
    return "".join(character for character in number if character.isdecimal()) + rest


def is_number(token: str) -> bool:
    """Whether a token of `tokens` is a number."""
    return token[0].isdecimal()


def is_formal(token: str) -> bool:
    """Whether a token is a number, symbol, command, deciding word, or a name of one or two letters such as x or AB."""
    if not token[0].isalpha():
        return True
    if len(token) > 2 or token in _SHORT_WORDS:
        return False
    return not _IS_IDEOGRAPH(token)


def numbers(tokens: Iterable[str]) -> tuple[str, ...]:
    """The numbers of a text in their order."""
    return tuple(token for token in tokens if is_number(token))


def formal(tokens: Iterable[str]) -> tuple[str, ...]:
    """The formal tokens of a text in their order."""
    return tuple(token for token in tokens if is_formal(token))


def shingles(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` tokens in order; a single run of all tokens if there are fewer, and none if there are none."""
    if not tokens:
        return []
    return list(zip(*(tokens[i:] for i in range(n)), strict=False)) or [tuple(tokens)]


def jaccard(a: Collection, b: Collection) -> float:
    """Size of the intersection of two sets over that of their union; 1 for two empty ones."""
    a, b = set(a), set(b)
    return len(a & b) / len(a | b) if a or b else 1.0
