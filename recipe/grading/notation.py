"""The notation of plain text and of Unicode, as LaTeX."""

from __future__ import annotations

import re
import unicodedata

_FORMAT_CHARACTERS = (
    *((0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2)),
    *((0x180E, 0x180E), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x2064), (0x2066, 0x206F), (0xFEFF, 0xFEFF)),
    *((0xFFF9, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3)),
    *((0x1D173, 0x1D17A), (0xE0001, 0xE0001), (0xE0020, 0xE007F)),
)
_INVISIBLE = {code: None for first, last in _FORMAT_CHARACTERS for code in range(first, last + 1)}

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


def visible(text: str) -> str:
    """The text without invisible characters: zero-width spaces, direction marks, all of Unicode's Cf."""
    return text if text.isascii() else text.translate(_INVISIBLE)


def to_latex(answer: str) -> str:
    """An answer with plain-text notation as LaTeX, and full-width characters as ASCII; both graders read this.

    Unicode symbols, and as a complete answer 2 1/2 (a mixed number) and 1.5e-3. Invisible characters are left out.
    """
    answer = visible(answer)
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
