r"""The part of an answer that may be passed to math_verify: formulas, without anything that it would silently drop.

math_verify drops the text in an answer, so it would read 5\text{ or more} and 5\text{ dozen} as 5. Here words between
values become commas, listed units are removed, and an answer with any other words is not passed to it at all.
"""

from __future__ import annotations

import re

from recipe.grading import strict, units
from recipe.grading.notation import to_latex

MOST_WORDS = 6
"""Words of a unit: miles per square hour."""


class Unreadable(ValueError):
    """An answer that must not be passed to math_verify; the message is a phrase that says why."""


_FUNCTIONS = set(
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan arccot log ln lg exp lim max min sup inf gcd lcm det "
    "sgn arg deg dim ker mod Re Im Var erf sqrt".split()
)
_GROUP = re.compile(
    r"(\\(?:text(?:bf|it|rm|sf|tt|sc|up|normal)?|[hm]box|math(?:rm|it|sf|tt|bf)|operatorname\*?|emph) ?\{)"
    r"|\\[A-Za-z]+|\\.|[{}]"
)
_SPACING = re.compile(r"\\[ ,;:!>]|\\q?quad(?![A-Za-z])|~|[{}]")
_POWER = re.compile(r" ?\^ ?(?:[23]|\{ ?[23] ?\})")
_NO_TEXT_FOLLOWS = re.compile(r" ?(?:$|[,;)\]}=]|\\[\]}),;]|\\right(?![A-Za-z]))")
_SCALE = re.compile(r"(\^ ?(?:\\circ|\{ ?\\circ ?\})) ?(?:\\(?:text|mathrm|mbox) ?\{ ?[CF] ?\}|[CF](?![A-Za-z]))")
_DOTS = re.compile(r"\.\.\.|\\[lc]?dots[cbmio]?(?![A-Za-z])")
_CHOICE = re.compile(r"\(?[A-J]\)?[.:]?")
_ANSWER_IS = re.compile(r"(?:the )?(?:final )?answer(?: is)?:?", re.IGNORECASE)
_LABEL_WORDS = re.compile(r"[A-Za-z]+(?: [A-Za-z]+){0,4}:?")
_NEGATIONS = re.compile(r"\b(?:not|no|never|non|less|more|than|about|least|most)\b|\b(?:un|in|approx)", re.IGNORECASE)
_BEHIND_A_VALUE = re.compile(r"([\d)}\]]|\\pi(?![A-Za-z]))(?:[ ~]|\\[ ,;:!])*([A-Za-z][A-Za-z .]*)$")
_LONG_WORD = re.compile("[A-Za-z]{3}")
_SHORT_WORDS = set("or to is no if by th st nd rd at of as so we not and".split())
_WORDS = re.compile(r"(?:[A-Za-z][a-z]{3,}|[Nn]o|[Yy]es)(?:[ ,.'-]{1,2}[A-Za-z]+)*[.!]?")
_REPEATING = re.compile(r"(?<!\d)(\d{0,30})\.(\d{0,30})\\(?:overline|bar) ?\{(\d{1,30})\}")
_DECIMAL_EXPONENT = re.compile(r"\^ ?\{ ?(-?)(\d+)\.(\d+) ?\}")


def readable(answer: str) -> str:
    r"""An answer in LaTeX reduced to formulas: "3\text{ or }5\text{ cm}" is "3, 5".

    Also, recurring decimals and decimal exponents become fractions.

    Raises:
        Unreadable: it is written in words, contains words other than a listed unit, "and" or "or", has dots that could
            mean anything, or is too long.
    """
    if len(answer) > strict.MAX_LENGTH:
        raise Unreadable(f"longer than {strict.MAX_LENGTH} characters")
    text = " ".join(to_latex(answer).split())
    if _DOTS.search(text):
        raise Unreadable("it contains dots")
    text = _without_text(_SCALE.sub(r"\1", text)).removeprefix("=")
    if _WORDS.fullmatch(text):
        raise Unreadable("it is written in words")
    text = _without_bare_unit(text)
    if behind := _BEHIND_A_VALUE.search(text):
        if any(_is_english(word) for word in behind[2].replace(".", " ").split()):
            raise Unreadable(f"words that are not a unit: {behind[2][:40]!r}")
    text = _REPEATING.sub(_fraction, text)
    return _DECIMAL_EXPONENT.sub(_exponent, text)


def _without_text(text: str) -> str:
    r"""`text` with every \text{...} replaced by its meaning; Unreadable if that is not known."""
    pieces: list[str] = []
    end = 0
    for start, content_start, content_end, command in _groups(text):
        content = " ".join(_SPACING.sub(" ", text[content_start:content_end]).split())
        whole = not text[:start].strip() and not text[content_end + 1 :].strip()
        pieces.append(text[end:start])
        end = content_end + 1
        joined = content.strip(",; ").casefold() in ("and", "or")
        if joined or not any(character.isalnum() for character in content):
            pieces.append(", " if joined else content)
        elif whole:
            pieces.append(content)
        elif _is_unit(text[start : content_end + 1], command, content, "".join(pieces)) and _unit_ends(text, end):
            if power := _POWER.match(text, end):
                end = power.end()
        elif _is_formula(command, content):
            pieces.append(text[start:end])
        elif not _is_label(text[:start], content, text[end:]):
            raise Unreadable(f"words that are not a unit: {content[:40]!r}")
    return "".join([*pieces, text[end:]]).strip()


def _groups(text: str) -> list[tuple[int, int, int, str]]:
    r"""Every outermost \text{...} and its like: where it starts, where its content starts and ends, and its command."""
    found: list[tuple[int, int, int, str]] = []
    depth, opened = 0, None
    for token in _GROUP.finditer(text):
        if token.group(1):
            if opened is None:
                opened = depth, token.start(), token.end(), token.group(1).rstrip("{ ")
            depth += 1
        elif token.group() == "{":
            depth += 1
        elif token.group() == "}":
            depth -= 1
            if opened is not None and depth == opened[0]:
                found.append((opened[1], opened[2], token.start(), opened[3]))
                opened = None
    return found


def _is_formula(command: str, content: str) -> bool:
    r"""Whether a group contains a symbol, as \mathrm{e}, \mathbf{x}, \operatorname{lcm} and \text{lcm} do."""
    return content in _FUNCTIONS or (len(content) == 1 and content.isalpha() and command not in (r"\text", r"\mbox"))


def _is_unit(group: str, command: str, content: str, before: str) -> bool:
    r"""Whether a group is a unit; \mathrm{m} only behind a number, \mathrm{~m} and \text{m} everywhere."""
    if units.parse(content) is None:
        return False
    variable = _is_formula(command, content) and group.endswith("{" + content + "}")
    return not variable or strict.normal_form(before + group).unit is not None


def _unit_ends(text: str, end: int) -> bool:
    """Whether the value of a unit that ends at `end` also ends there: 5 feet 6 inches has another one after it."""
    power = _POWER.match(text, end)
    return bool(_NO_TEXT_FOLLOWS.match(text, power.end() if power else end))


def _is_label(before: str, content: str, behind: str) -> bool:
    r"""Whether words only name what follows, as in \text{Area} = 5, \textbf{(D)}\ 5 and v_{\text{max}}."""
    if before.rstrip().endswith(("_", "_{")):
        return content.isalpha() and content.casefold() not in ("and", "or", "not")
    if before.strip():
        return False
    if _CHOICE.fullmatch(content) or _ANSWER_IS.fullmatch(content):
        return True
    return bool(behind.lstrip().startswith("=") and _LABEL_WORDS.fullmatch(content) and not _NEGATIONS.search(content))


def _without_bare_unit(text: str) -> str:
    """`text` without a unit at its end that is not in a group: 3 square feet, x + 3 meters, 10cm."""
    if (behind := _BEHIND_A_VALUE.search(text)) and _is_bare_unit(behind[2], text):
        return text[: behind.end(1)]
    words = text.split(" ")
    for begin in range(max(1, len(words) - MOST_WORDS), len(words)):
        if _is_bare_unit(" ".join(words[begin:]), text):
            return " ".join(words[:begin]).removesuffix("\\")  # the space of x\ meters
    return text


def _is_bare_unit(words: str, text: str) -> bool:
    """Whether the words at the end of a text are a unit; one and two letters may also be variables: 3s, x + 3 m."""
    unit = units.parse(words)
    return unit is not None and (_LONG_WORD.search(words) is not None or unit == strict.likely_unit(text))


def _is_english(word: str) -> bool:
    return word not in _FUNCTIONS and (len(word) > 2 or word.casefold() in _SHORT_WORDS)


def _fraction(decimal: re.Match[str]) -> str:
    value = strict.repeating_decimal("", *decimal.groups())
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _exponent(exponent: re.Match[str]) -> str:
    sign, whole, digits = exponent.groups()
    return rf"^{{{sign}\frac{{{whole}{digits}}}{{1{'0' * len(digits)}}}}}"
