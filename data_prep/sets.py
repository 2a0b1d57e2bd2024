"""The data sets: where they are published, in which layouts, how many problems they have, and what a row must be.

`DATA_SETS` is the table; a layout is named by its columns and recognised by them. `read_problem` converts a row to a
problem or says which field is bad.
"""

from __future__ import annotations

import ast
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from data_prep.reading import Record
from data_prep.templates import strip_foreign
from recipe.grading.extract import extract
from recipe.grading.sources import check_ground_truth, supports

MAX_PROBLEM, MAX_ANSWER = 20_000, 1_000
"""Characters; beyond them a field is malformed. The longest problem of the benchmarks has 4,415."""

_MAX_CELL = 3 * MAX_PROBLEM  # of messages as text: instructions and escapes are added to the problem
_MESSAGES = re.compile(r"""\[\s*\{\s*['"](?:role|content)['"]\s*:""")

_SUPPORTED = (
    'supported are messages {"role", "content"} with one user turn, at the end, and at most one system turn before it; '
    "write the other turns into the user turn"
)
_SHOWN_TURNS = 5

_IDS = ("unique_id", "id", "uuid", "problem_idx", "idx", "extra_info.index")

# Control characters other than tab and line ends, U+FFFD, surrogates: signs of damaged text.
_DAMAGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ud800-\udfff]")

# JSON and Python turn a single backslash into an escape: \text, \times, \theta, \tfrac; \right, \rho; \neq, \nabla.
_ATE_BACKSLASH = re.compile(
    r"\t(?:(?:ext(?:bf|it|rm)?|frac)\{|(?:imes|heta|riangle)(?![a-z]))|\r(?:ight|ho)(?![a-z])|\n(?:eq|abla)(?![a-z])"
)

_unreadable = lru_cache(maxsize=1 << 16)(check_ground_truth)  # a set published x100 has few different answers


class BadField(Exception):
    """A field of a row cannot be used: field, problem."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A usable row.

    text: the bare problem. answer: in the set's own form. id: the source's, if it has one. where: file and row.
    stripped: the prompt contained another recipe's instructions. system: the system turn before it, if that is kept.
    extra: further columns, as text.
    """

    text: str
    answer: str
    id: str | None
    where: str
    stripped: bool
    system: str | None = None
    extra: Mapping[str, str] | None = None

    @property
    def setting(self) -> tuple[str | None, ...]:
        """What belongs to the problem beside its text: the system turn and the further columns.

        Rows that differ here are different rows, and never duplicates of each other.
        """
        return (self.system, *(self.extra or {}).values())


@dataclass(frozen=True)
class Layout:
    """Columns of problem and answer, and how the answer is read from the latter.

    `a.b` is the column of that name or, without one, field b of column a.
    """

    problem: str
    answer: str
    parse: Callable[[Any], str]

    @property
    def columns(self) -> set[str]:
        """The columns of a table with this layout, as its authors publish it."""
        return {self.problem.split(".")[0], self.answer.split(".")[0]}

    def fits(self, columns: Collection[str]) -> bool:
        """Whether a table with these columns has problem and answer."""
        return has_column(columns, self.problem) and has_column(columns, self.answer)


@dataclass(frozen=True)
class DataSet:
    """One published set.

    hub_id, config: where the Hugging Face hub has it.
    layouts: in the order of preference.
    counts: the numbers of problems accepted as complete, by split; its keys are the existing splits.
    unit: what is counted: "rows"; "problems", distinct texts; "both", which also refuses repeated rows.
    check: brings the answer to the set's own form, or raises BadField.
    leave_out: why a row of the file does not belong to the set, or None.
    context: the column of a text that precedes the problem, if there is one.
    note: a note on the counts.
    scorer: one of `recipe.grading.sources.NAMES`: it is then part of the rows' data source, `<scorer>/<name>`, so that
        the set needs no entry elsewhere. None: `name` is the data source, and `SOURCES` or `reward.scorers` has it.
    longest_answer: characters.
    keeps_system, strips: whether a system turn stays, and whether the instructions of other recipes are removed.
    extra: columns that become part of the rows' extra_info, as text.
    """

    name: str
    hub_id: str
    layouts: tuple[Layout, ...]
    counts: Mapping[str, Collection[int]]
    unit: str = "both"
    config: str | None = None
    check: Callable[[str], str] = str
    leave_out: Callable[[Mapping[str, Any]], str | None] = lambda values: None
    context: str | None = None
    note: str = ""
    scorer: str | None = None
    longest_answer: int = MAX_ANSWER
    keeps_system: bool = False
    strips: bool = True
    extra: tuple[str, ...] = ()

    @property
    def data_source(self) -> str:
        """That of its rows, which says how they are scored."""
        return f"{self.scorer}/{self.name}" if self.scorer else self.name

    def layout(self, columns: Collection[str]) -> Layout | None:
        """The first layout whose columns are all there, or None."""
        return next((layout for layout in self.layouts if layout.fits(columns)), None)


def has_column(columns: Collection[str], path: str) -> bool:
    """Whether there is a column `path`, or one of which `path` can be a field."""
    return path in columns or path.split(".")[0] in columns


def read_problem(data_set: DataSet, layout: Layout, record: Record) -> Problem:
    """The problem in a row.

    Raises:
        BadField: a field is missing, of a wrong type, empty, too long, damaged, or not an answer of this set, or none
            that its scorer can read.
    """
    prompt, system = _prompt(_field(record.values, layout.problem), layout.problem)
    text = strip_foreign(prompt) if data_set.strips else prompt.strip()
    stripped = (system is not None and not data_set.keeps_system) or text != prompt.strip()
    if system is not None and data_set.keeps_system:
        _check_text(system, layout.problem, MAX_PROBLEM)
    _check_text(prompt, layout.problem, _MAX_CELL)  # before stripping removes the form feed that \f of \frac became
    _check_text(text, layout.problem, MAX_PROBLEM)
    if data_set.context and _present(context := record.values.get(data_set.context)):
        if not isinstance(context, str):
            raise BadField(data_set.context, f"{type(context).__name__} instead of text")
        text = f"{context.strip()}\n\n{text}".lstrip()
        _check_text(text, data_set.context, MAX_PROBLEM)
    raw = _field(record.values, layout.answer)
    try:
        # Before the patterns of a parser see it; a worked solution may be longer than its answer.
        if isinstance(raw, str):
            _check_text(raw, layout.answer, MAX_ANSWER if layout.parse is plain else MAX_PROBLEM)
        answer = layout.parse(raw)
        _check_text(answer, layout.answer, data_set.longest_answer)
        answer = data_set.check(answer)
        if supports(data_set.data_source) and (unreadable := _unreadable(data_set.data_source, answer)):
            raise BadField(unreadable)
    except BadField as bad:
        raise BadField(layout.answer, bad.args[-1]) from None
    # Interned, because a set published x100 is read completely before the repetition is noticed.
    return Problem(
        sys.intern(text),
        sys.intern(answer),
        _id(record.values),
        record.where,
        stripped,
        system if data_set.keeps_system else None,
        {column: _extra(record.values, column) for column in data_set.extra} or None,
    )


def as_text(value: Any) -> str:
    """Any value as text: text without blank space around it, everything else as JSON; 142.0 is "142"."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float):
        return plain(value)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadField(f"{type(value).__name__}, which JSON does not have ({error})") from None


def plain(value: Any) -> str:
    """A bare answer: text without dollars around it, or a number; 142.0 is "142"."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadField(f"{type(value).__name__} instead of text or a number")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadField(f"{value} is not a number")
        return str(int(value)) if value.is_integer() else repr(value)
    return _without_dollars(value) if isinstance(value, str) else str(value)


def boxed(value: Any) -> str:
    r"""The answer in a worked solution: content of its last \boxed or \fbox; MATH also writes `\boxed 2`."""
    text = re.sub(r"\\(?:boxed|fbox) +([^\s{}$]+?)(?=[.,]?(?:[\s$]|$))", r"\\boxed{\1}", _text(value))
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    answer = extract(text[start:]) if start >= 0 else None
    if answer is None:
        raise BadField("no \\boxed{...} with an answer")
    return answer


def after_hashes(value: Any) -> str:
    """GSM8K's answer, after the last "####", without thousands separators."""
    _, mark, answer = _text(value).rpartition("####")
    if not mark:
        raise BadField('no "####" with an answer after it')
    return _ungrouped(answer.strip())


def several(value: Any) -> str:
    """OlympiadBench's list of answers (several in one text, too), joined by ", "."""
    if isinstance(value, str) and re.match(r"""\[\s*['"]""", value):
        if re.search(r"""['"]\s+['"]""", value):  # as numpy prints a list; Python would join the two
            raise BadField("a list as text without commas between its values")
        value = _read_back(value)
    if not isinstance(value, list):
        return plain(value)
    if not value:
        raise BadField("empty list")
    for answer in value:
        if isinstance(answer, str):
            _check_text(answer, "", MAX_ANSWER)
    return ", ".join(plain(answer) for answer in value)


def integer(low: int, high: int) -> Callable[[str], str]:
    r"""A check for sets whose answers are integers of a range: 033, 33.0 and 33^\circ are 33 (AIME25 has a degree)."""

    def check(answer: str) -> str:
        match = re.fullmatch(r"([+-]?[0-9]{1,9})(?:\.0*)?(?:\^\{?\\circ\}?|°)?", _ungrouped(answer))
        if match is None or not low <= int(match[1]) <= high:
            raise BadField(f"{answer!r} is not an integer from {low} to {high}")
        return str(int(match[1]))

    return check


def contest_year(name: str) -> Callable[[Mapping[str, Any]], str | None]:
    """Leave out problems that, by their url, are of another year or contest than, say, 2023_AMC."""

    def leave_out(values: Mapping[str, Any]) -> str | None:
        contest = re.search(r"20[0-9]{2}_(?:AMC|AIME)", str(values.get("url")))
        return "other contest" if contest and contest[0] != name else None

    return leave_out


def not_english_open_text(values: Mapping[str, Any]) -> str | None:
    """Leave out what is not OlympiadBench's OE_TO_maths_en: open-ended, text only, mathematics, English."""
    pictures = [column for column, value in values.items() if column.startswith("image") and _present(value)]
    if pictures or "<image" in str(values.get("question")):
        return "modality"
    for column, wanted in (
        ("modality", "Text-only"),
        ("language", "English"),
        ("subject", "Math"),
        ("question_type", "Open-ended"),
    ):
        if _present(values.get(column)) and values[column] != wanted:
            return column
    return None


def _present(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_present, value.values()))
    return value not in (None, "", []) and value == value


def _field(values: Mapping[str, Any], path: str) -> Any:
    value: Any = values
    for key in [path] if path in values else path.split("."):
        if isinstance(value, str) and value.startswith("{"):
            value = _read_back(value, path)
        if not isinstance(value, Mapping):
            raise BadField(path, f"{type(value).__name__} instead of named fields")
        value = value.get(key)
        if value is None or value != value:  # pandas turns a gap into NaN
            raise BadField(path, "missing")
    return value


def _id(values: Mapping[str, Any]) -> str | None:
    for path in _IDS:
        try:
            value = _field(values, path)
        except BadField:
            continue
        if isinstance(value, str | int) and not _DAMAGE.search(str(value)):
            return str(value)
    return None


def _extra(values: Mapping[str, Any], column: str) -> str:
    try:
        text = as_text(_field(values, column))
    except BadField as bad:
        raise BadField(column, bad.args[-1]) from None
    if damage := _DAMAGE.search(text):
        raise BadField(column, _damaged(damage))
    return text


def _prompt(value: Any, field: str) -> tuple[str, str | None]:
    """A problem as text, or the user's turn of a list of messages; and its system turn, None without one."""
    if isinstance(value, str) and _MESSAGES.match(value):
        value = _read_back(value, field)
    if isinstance(value, str):
        return value, None
    if not isinstance(value, list):
        raise BadField(field, f"{type(value).__name__} instead of text or messages")
    turns = [turn if isinstance(turn, Mapping) else {} for turn in value]
    roles = [turn.get("role") for turn in turns]
    texts = [turn.get("content") for turn in turns]
    if roles not in (["user"], ["system", "user"]):
        raise BadField(field, f"{_turns(roles)}: {_SUPPORTED}")
    for role, text in zip(roles, texts, strict=True):
        if not isinstance(text, str):
            raise BadField(field, f"the {role} turn is {type(text).__name__} instead of text")
    return texts[-1], texts[0] if len(texts) == 2 else None


def _turns(roles: Sequence[Any]) -> str:
    """The roles of messages in words, the first few of many."""
    named = [f"{role:.20}" if isinstance(role, str) else "(no role)" for role in roles[:_SHOWN_TURNS]]
    more = [f"{len(roles) - _SHOWN_TURNS} more"] if len(roles) > _SHOWN_TURNS else []
    return f"the turns {', '.join(named + more)}" if roles else "no turns"


def _read_back(text: str, field: str = "") -> Any:
    """The list or mapping in a CSV cell, as JSON or as Python prints it."""
    if len(text) <= _MAX_CELL:
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                return read(text)
    raise BadField(field, "a list or named fields as text, which cannot be read back")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadField(f"{type(value).__name__} instead of text")
    return value


def _without_dollars(text: str) -> str:
    r"""`$69$,$84$` is `69, 84`; dollars elsewhere (prices, prose) stay."""
    parts = re.fullmatch(r"\s*(\$[^$]+\$(?:\s*,\s*\$[^$]+\$)*)\s*", text)
    return ", ".join(part.strip() for part in re.findall(r"\$([^$]+)\$", parts[1])) if parts else text.strip()


def _ungrouped(text: str) -> str:
    """1,234,567 without its commas; in 1,2,3 and in (1,200) they separate values."""
    return text if re.search(r"[][(){}]", text) else re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)


def _check_text(text: str, field: str, limit: int) -> None:
    if not text.strip():
        raise BadField(field, "empty")
    if text.strip().casefold() in ("nan", "null"):
        raise BadField(field, f"missing, written as {text.strip()!r}")
    if len(text) > limit:
        raise BadField(field, f"{len(text):,} characters, more than {limit:,}")
    if damage := _DAMAGE.search(text):
        raise BadField(field, _damaged(damage))
    if eaten := _ATE_BACKSLASH.search(text):
        raise BadField(field, f"{eaten[0]!r} at character {eaten.start() + 1}: a LaTeX command lost its backslash")


def _damaged(found: re.Match[str]) -> str:
    """What a character that `_DAMAGE` found is, where it is, and what to do."""
    code, place = ord(found[0]), f"at character {found.start() + 1}"
    if 0xDC80 <= code <= 0xDCFF:  # how `surrogateescape` keeps a byte
        return f"a byte that is not UTF-8 (0x{code - 0xDC00:02X} {place}): save the file as UTF-8"
    if 0xD800 <= code <= 0xDFFF:
        return f"half a character (\\u{code:04x} {place}): text was cut off there, so correct it"
    if code == 0xFFFD:
        return f"a replacement character (U+FFFD {place}): text was lost, so make the file again from its source"
    return f"a control character (U+{code:04X} {place}): remove it; in JSON, a backslash is written \\\\"


_ROWS = Layout("prompt", "reward_model.ground_truth", plain)
_PROMPT_SOLUTION = Layout("prompt", "solution", plain)
_ANSWERED = (Layout("problem", "answer", plain), Layout("question", "answer", plain))
_SOLVED = Layout("problem", "solution", boxed)


def _aime(year: int, hub_id: str) -> DataSet:
    return DataSet(
        f"aime{year % 100}",
        hub_id,
        (_ROWS, *_ANSWERED, _SOLVED),
        {"test": (30,)},
        check=integer(0, 999),
        leave_out=contest_year(f"{year}_AIME"),
    )


DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "dapo_math_17k",
            "BytedTsinghua-SIA/DAPO-Math-17k",
            (_ROWS, _PROMPT_SOLUTION, *_ANSWERED),
            {"train": (17_398,)},
            unit="problems",
            note="distinct problems; published as 17,917 rows, each 100 times, some with two answers",
        ),
        DataSet(
            "openr1_math_46k",
            "Elliott/Openr1-Math-46k-8192",
            (_ROWS, *_ANSWERED),
            {"train": range(45_000, 47_000)},
            unit="rows",
            note="a range: the name says 46k, the paper 45k, and the exact count is not known",
        ),
        DataSet(
            "math",
            "DigitalLearningGmbH/MATH-lighteval",
            (_ROWS, *_ANSWERED, _SOLVED),
            {"train": (7_500,), "test": (5_000,)},
            unit="rows",
        ),
        DataSet(
            "gsm8k",
            "openai/gsm8k",
            (_ROWS, Layout("question", "answer", after_hashes)),
            {"train": (7_473,), "test": (1_319,)},
            unit="rows",
            config="main",
        ),
        _aime(2024, "HuggingFaceH4/aime_2024"),
        _aime(2025, "math-ai/aime25"),
        _aime(2026, "MathArena/aime_2026"),
        DataSet(
            "amc23",
            "math-ai/amc23",
            (_ROWS, *_ANSWERED),
            {"test": (40,)},
            check=integer(-(10**9), 10**9),
            leave_out=contest_year("2023_AMC"),
            note="AMC 12 of 2023; also from the file of amc83, by its url column",
        ),
        DataSet(
            "amc83",
            "AI-MO/aimo-validation-amc",
            (_ROWS, *_ANSWERED),
            {"test": (83,)},
            check=integer(-(10**9), 10**9),
            note="AMC 12 of 2022 and 2023",
        ),
        DataSet("math500", "HuggingFaceH4/MATH-500", (_ROWS, *_ANSWERED, _SOLVED), {"test": (500,)}),
        DataSet("minerva", "math-ai/minervamath", (_ROWS, *_ANSWERED, _SOLVED), {"test": (272,)}),
        DataSet(
            "olympiadbench",
            "Hothan/OlympiadBench",
            (_ROWS, Layout("question", "final_answer", several), *_ANSWERED),
            {"test": (675, 674)},
            config="OE_TO_maths_en_COMP",
            leave_out=not_english_open_text,
            context="context",
            note="open-ended, text only, English; 675 in the authors' release and most papers, 674 on the hub",
        ),
    )
}
