"""Which answer a response gives: one rule for training, evaluation and every mathematical data source."""

from __future__ import annotations

import re

from recipe.grading.notation import visible

# A backslash takes the next character with it, so that \{ and \} (set braces) do not count as groups; \\boxed, a box
# whose backslash was escaped once too often, is taken for a box.
_TOKEN = re.compile(r"(\\\\?(?:boxed|fbox)\s*\{)|\\\\?(?:boxed|fbox) +(-?[\d.]+)(?=\s*\$)|\\.|[{}]", re.DOTALL)
_ANSWER = re.compile(r"answer[\s*_]*[:：]", re.IGNORECASE)
_HASHES = re.compile(r"####")
_FINAL = re.compile(r"final answer is[ \t]*:?", re.IGNORECASE)
_TEXT = re.compile(r"[^\s*_`$\\\[\]]")  # what is not markup
_SENTENCE_END = re.compile(r"\.(?:\s|$)")


def extract(response: str) -> str | None:
    r"""The final answer of a response, or None. Linear in the length of the response, whatever it contains.

    The first of these that the response has; of several occurrences, the last:

    1. the content of \boxed{...} or \fbox{...}, if its braces balance and it contains more than braces; the number of
       $\boxed 3$;
    2. the line after "Answer:" (any case, bold or not), or the first line with text below it; of that line what 4 finds
       in it, as in "Final Answer: The final answer is $3$. I hope it is correct.";
    3. the line after "####";
    4. the rest of the sentence after "final answer is", or the first sentence below it.

    White space, and for 2 to 4 Markdown emphasis, dollars around it and a final period, are stripped; so are
    invisible characters, such as zero-width spaces.
    """
    found = extract_with_line(response)
    return found[0] if found else None


def extract_with_line(response: str) -> tuple[str, str] | None:
    """`extract`, and the line that holds the answer as the response has it (of a box, its content)."""
    response = visible(response)
    boxed = _last_box(response)
    if boxed is not None:
        return boxed, boxed
    for marker, tidied in ((_ANSWER, _line), (_HASHES, _line), (_FINAL, _sentence)):
        end = max((found.end() for found in marker.finditer(response)), default=None)
        if end is not None and (answer := tidied(response[end:])):
            return answer, _first_line(response[end:]).strip()
    return None


def _last_box(response: str) -> str | None:
    best, best_start = None, -1
    opened: list[int | None] = []  # for every open brace: where a box's content starts, or None
    for token in _TOKEN.finditer(response):
        text = token.group()
        if text == "{":
            opened.append(None)
        elif text == "}":
            start = opened.pop() if opened else None
            if start is not None and start > best_start:
                content = response[start : token.start()].strip()
                if content.strip("{} "):  # \boxed{{}} occurs in code that writes boxes
                    best, best_start = content, start
        elif token.group(1):
            opened.append(token.end())
        elif token.group(2):
            best, best_start = token.group(2), token.start(2)
    return best


def _line(rest: str) -> str:
    line = _first_line(rest)
    final = _FINAL.search(line)
    return _sentence(line[final.end() :]) if final else tidy(line)


def _sentence(rest: str) -> str:
    line = _first_line(rest).lstrip(" \t*_")
    if line.startswith("$") and "$" in line[1:]:
        return tidy(line[: line.index("$", 1) + 1])
    return tidy(_SENTENCE_END.split(line, maxsplit=1)[0])


def _first_line(rest: str) -> str:
    """The first line with text in it, or nothing."""
    found = _TEXT.search(rest)
    return rest[rest.rfind("\n", 0, found.start()) + 1 :].split("\n", 1)[0] if found else ""


def tidy(text: str) -> str:
    """A line without what surrounds an answer: white space, emphasis, dollars, and a final period."""
    text = text.strip().strip("*_`").strip()
    if not text.endswith(".."):
        text = text.removesuffix(".").rstrip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        inner = text[len(opening) : -len(closing)]
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            if opening not in inner and closing not in inner:
                return inner.strip()
    return text
