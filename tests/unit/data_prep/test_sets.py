"""Every published layout of every set, in every file format, comes out as the same rows; each bad field is named."""

import json

import pandas as pd
import pytest

from data_prep.__main__ import main
from data_prep.contract import validate_rows
from data_prep.reading import Record
from data_prep.sets import (
    DATA_SETS,
    MAX_ANSWER,
    MAX_PROBLEM,
    BadField,
    Layout,
    after_hashes,
    boxed,
    contest_year,
    has_column,
    integer,
    not_english_open_text,
    plain,
    read_problem,
    several,
)
from data_prep.templates import FOREIGN_PREFIXES, FOREIGN_SUFFIXES

DAPO_PROMPT = f"{FOREIGN_PREFIXES[0]}\n\n{{}}\n\n{FOREIGN_SUFFIXES[0]}"
AOPS = "https://artofproblemsolving.com/wiki/index.php/{}_Problems/Problem_1"


def verl_row(text, answer, index, system=None):
    system = [{"role": "system", "content": system}] if system else []
    return {
        "data_source": "whatever",
        "prompt": [*system, {"role": "user", "content": text}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }


OLYMPIAD = {
    "solution": ["so ..."],
    "context": None,
    "image_1": None,
    "image_2": None,
    "modality": "Text-only",
    "difficulty": "Competition",
    "unit": None,
    "answer_type": "Numerical",
    "error": None,
    "question_type": "Open-ended",
    "subfield": "Algebra",
    "subject": "Math",
    "language": "English",
}


# name: set, rows as published, expected (problem, answer, id) of each.
LAYOUTS = {
    "dapo as published": (
        "dapo_math_17k",
        [
            verl_row(DAPO_PROMPT.format("What is $1+1$?"), "2", "9a9b6eb4"),
            verl_row(DAPO_PROMPT.format("求 $2+3$ 的值。"), "5", "c1ee"),
        ],
        [("What is $1+1$?", "2", "9a9b6eb4"), ("求 $2+3$ 的值。", "5", "c1ee")],
    ),
    "dapo processed": (
        "dapo_math_17k",
        [
            {"prompt": "What is $1+1$?", "solution": "2", "ability": "MATH"},
            {"prompt": "And $\\{1\\}$?", "solution": "34", "ability": "MATH"},
        ],
        [("What is $1+1$?", "2", "0"), ("And $\\{1\\}$?", "34", "1")],
    ),
    "openr1": (
        "openr1_math_46k",
        [
            verl_row("Find $x$ if $2x=1$.", "\\frac{1}{2}", 7, system="Your task is to follow a systematic ...")
            | {"target": [{"role": "assistant", "content": "<think>half</think>"}]},
            verl_row("Solve.", "(-\\infty, 3) \\cup [5, 7)", 8, system="Your task is ...")
            | {"target": [{"role": "assistant", "content": "..."}]},
        ],
        [("Find $x$ if $2x=1$.", "\\frac{1}{2}", "7"), ("Solve.", "(-\\infty, 3) \\cup [5, 7)", "8")],
    ),
    "math": (
        "math",
        [
            {
                "problem": "Half of one?",
                "level": "Level 1",
                "type": "Algebra",
                "solution": "First \\boxed{7}, no: $\\boxed{\\frac{1}{2}}$.",
            },
            {"problem": "Two?", "level": "Level 5", "type": "Algebra", "solution": "It is $\\boxed 2$."},
        ],
        [("Half of one?", "\\frac{1}{2}", "0"), ("Two?", "2", "1")],
    ),
    "gsm8k": (
        "gsm8k",
        [
            {"question": "How many clips?", "answer": "48/2=<<48/2=24>>24\n#### 72"},
            {"question": "How much?", "answer": "So\n#### 1,234"},
        ],
        [("How many clips?", "72", "0"), ("How much?", "1234", "1")],
    ),
    "aime24, Maxwell-Jia": (
        "aime24",
        [
            {"ID": "2024-II-4", "Problem": "Logs?", "Solution": "...", "Answer": 33},
            {"ID": "2024-I-1", "Problem": "Aya walks.", "Solution": "...", "Answer": 204},
        ],
        [("Logs?", "33", "2024-II-4"), ("Aya walks.", "204", "2024-I-1")],
    ),
    "aime24, HuggingFaceH4": (
        "aime24",
        [
            {
                "id": 60,
                "problem": "Aya walks.",
                "solution": "...",
                "answer": "025",
                "url": AOPS.format("2024_AIME_I"),
                "year": "2024",
            },
            {
                "id": 12,
                "problem": "Older.",
                "solution": "...",
                "answer": "25",
                "url": AOPS.format("2023_AIME_I"),
                "year": "2023",
            },
        ],
        [("Aya walks.", "25", "60")],
    ),
    "aime24, math-ai": (
        "aime24",
        [{"id": 0, "problem": "Aya walks.", "solution": "\\boxed{204}", "url": AOPS.format("2024_AIME_I")}],
        [("Aya walks.", "204", "0")],
    ),
    "aime25, math-ai": (
        "aime25",
        [{"problem": "Bases?", "answer": "70", "id": "0"}, {"problem": "Angles?", "answer": "336^\\circ", "id": "1"}],
        [("Bases?", "70", "0"), ("Angles?", "336", "1")],
    ),
    "aime25, opencompass": ("aime25", [{"question": "Bases?", "answer": "70"}], [("Bases?", "70", "0")]),
    "aime26, MathArena": (
        "aime26",
        [{"problem_idx": 1, "answer": 277, "problem": "Patrick walks."}],
        [("Patrick walks.", "277", "1")],
    ),
    "amc83": (
        "amc83",
        [
            {"id": 0, "problem": "Fractions?", "answer": 142.0, "url": AOPS.format("2022_AMC_12A")},
            {"id": 1, "problem": "Cities.", "answer": -1.0, "url": AOPS.format("2023_AMC_12A")},
        ],
        [("Fractions?", "142", "0"), ("Cities.", "-1", "1")],
    ),
    "amc23 from the file of amc83": (
        "amc23",
        [
            {"id": 0, "problem": "Fractions?", "answer": 142.0, "url": AOPS.format("2022_AMC_12A")},
            {"id": 1, "problem": "Cities.", "answer": -1.0, "url": AOPS.format("2023_AMC_12A")},
        ],
        [("Cities.", "-1", "1")],
    ),
    "amc23, math-ai": (
        "amc23",
        [{"id": 4, "question": "Cities.", "answer": "27.0", "url": AOPS.format("2023_AMC_12A")}],
        [("Cities.", "27", "4")],
    ),
    "math500": (
        "math500",
        [
            {
                "problem": "Polar?",
                "solution": "\\boxed{3}",
                "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
                "subject": "Precalculus",
                "level": 2,
                "unique_id": "test/precalculus/807.json",
            }
        ],
        [("Polar?", "\\left( 3, \\frac{\\pi}{2} \\right)", "test/precalculus/807.json")],
    ),
    "minerva, math-ai": (
        "minerva",
        [
            {"question": "Redshift?", "answer": "1.6"},
            {"question": "Speed?", "answer": "3e8 \\mathrm{~m} / \\mathrm{s}"},
        ],
        [("Redshift?", "1.6", "0"), ("Speed?", "3e8 \\mathrm{~m} / \\mathrm{s}", "1")],
    ),
    "minerva, raw": (
        "minerva",
        [{"problem": "Image?", "solution": "\\[ s=\\boxed{1.6} \\mathrm{~cm} \\]", "type": "8.282J", "idx": 0}],
        [("Image?", "1.6", "0")],
    ),
    "olympiadbench": (
        "olympiadbench",
        [
            OLYMPIAD | {"id": 1606, "question": "How many moves?", "final_answer": ["2"], "is_multiple_answer": False},
            OLYMPIAD
            | {"id": 1610, "question": "All n?", "final_answer": ["$\\frac{1}{2}$", "$3$"], "is_multiple_answer": True},
            OLYMPIAD | {"id": 1, "question": "Both?", "final_answer": ["$69$,$84$"], "is_multiple_answer": True},
            OLYMPIAD | {"id": 2, "question": "See <image_1>.", "final_answer": ["2"], "is_multiple_answer": False},
            OLYMPIAD | {"id": 3, "question": "物理", "final_answer": ["2"], "language": "Chinese"},
            OLYMPIAD | {"id": 4, "question": "Force?", "final_answer": ["2"], "subject": "Physics"},
            OLYMPIAD | {"id": 5, "question": "Prove.", "final_answer": None, "question_type": "Theorem proof"},
            OLYMPIAD | {"id": 6, "question": "Shape?", "final_answer": ["2"], "modality": "Multimodal"},
        ],
        [("How many moves?", "2", "1606"), ("All n?", "\\frac{1}{2}, 3", "1610"), ("Both?", "69, 84", "1")],
    ),
    "olympiadbench, Qwen's evaluation": (
        "olympiadbench",
        [
            {
                "id": 1606,
                "subfield": "Combinatorics",
                "context": "Let $N$ be given.",
                "question": "How many?",
                "solution": ["..."],
                "final_answer": ["$(1,2), (3,4)$"],
                "is_multiple_answer": True,
            }
        ],
        [("Let $N$ be given.\n\nHow many?", "(1,2), (3,4)", "1606")],
    ),
    "olympiadbench, flat": (
        "olympiadbench",
        [{"problem": "Price?", "answer": "$\\$ 5$ or so"}],
        [("Price?", "$\\$ 5$ or so", "0")],
    ),
}


def write_as(path, rows):
    """The rows as a file of the kind that the path's suffix names."""
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows, ensure_ascii=path.stem == "ascii"), encoding="utf-8")
    return path


def flat(rows):
    return not any(isinstance(value, list | dict) for row in rows for value in row.values())


FILES = ("rows.parquet", "rows.jsonl", "rows.json", "ascii.json", "rows.csv")


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(tmp_path, name):
    data_set, published, expected = LAYOUTS[name]
    for file in FILES:
        if file == "rows.csv" and not flat(published):
            continue
        source = write_as(tmp_path / file, published)
        output = tmp_path / "out" / file.replace(".", "_")
        split = next(iter(DATA_SETS[data_set].counts))
        flags = ["--allow-count-mismatch", "--output", str(output)]
        assert main([data_set, "--input", str(source), *flags]) == 0
        frame = validate_rows(output / f"{split}.parquet")
        extra = list(frame.extra_info)
        got = [(e["problem"], r["ground_truth"], e["id"]) for e, r in zip(extra, frame.reward_model, strict=True)]
        assert got == [(text, answer, f"{data_set}/{id_}") for text, answer, id_ in expected], file
        assert list(frame.data_source) == [data_set] * len(expected)
        assert [e["index"] for e in extra] == list(range(len(expected)))
        assert {(e["split"], e["template"]) for e in extra} == {(split, "boxed")}
        suffix = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
        assert [list(p) for p in frame.prompt] == [
            [{"role": "user", "content": text + suffix}] for text, _, _ in expected
        ]


def test_every_set_and_every_layout_has_an_example():
    shown = {
        (name, DATA_SETS[name].layout({column.lower() for row in rows for column in row}))
        for name, rows, _ in LAYOUTS.values()
    }
    assert {name for name, _ in shown} == set(DATA_SETS)
    kinds = {(layout.problem, layout.answer) for s in DATA_SETS.values() for layout in s.layouts}
    assert {(layout.problem, layout.answer) for _, layout in shown} == kinds


def test_counts_are_those_of_the_papers():
    counts = {(s.name, split): counts for s in DATA_SETS.values() for split, counts in s.counts.items()}
    assert counts == {
        ("dapo_math_17k", "train"): (17398,),
        ("openr1_math_46k", "train"): range(45000, 47000),
        ("math", "train"): (7500,),
        ("math", "test"): (5000,),
        ("gsm8k", "train"): (7473,),
        ("gsm8k", "test"): (1319,),
        ("aime24", "test"): (30,),
        ("aime25", "test"): (30,),
        ("aime26", "test"): (30,),
        ("amc23", "test"): (40,),
        ("amc83", "test"): (83,),
        ("math500", "test"): (500,),
        ("minerva", "test"): (272,),
        ("olympiadbench", "test"): (675, 674),
    }


@pytest.mark.parametrize(
    ("parse", "value", "answer"),
    [
        (plain, " \\frac{3}{4} ", "\\frac{3}{4}"),
        (plain, "$\\frac{3}{4}$", "\\frac{3}{4}"),
        (plain, "$5", "$5"),
        (plain, "(1, 2] \\cup \\{3\\}", "(1, 2] \\cup \\{3\\}"),
        (plain, "12 \\text{ cm}^2", "12 \\text{ cm}^2"),
        (plain, "１２，５ − π", "１２，５ − π"),
        (plain, 0, "0"),
        (plain, -0.25, "-0.25"),
        (plain, 1e20, "100000000000000000000"),
        (boxed, "\\boxed{a} and \\boxed{\\text{(B)}\\ \\{1,2\\}}.", "\\text{(B)}\\ \\{1,2\\}"),
        (boxed, "So $\\fbox{9}$", "9"),
        (boxed, "is \\boxed 17.", "17"),
        (boxed, "is $\\boxed {17}$", "17"),
        (after_hashes, "a #### 3\n#### -1,000,000 ", "-1000000"),
        (after_hashes, "#### 1,2,3", "1,2,3"),
        (after_hashes, "#### [1,200)", "[1,200)"),
        (several, ["2"], "2"),
        (several, ["$f(x)=-1$,$f(x)=x+1$"], "f(x)=-1, f(x)=x+1"),
        (several, [1, 2.0, "3"], "1, 2, 3"),
        (several, "['$1$', '2']", "1, 2"),
        (several, "[0, 1]", "[0, 1]"),
        (integer(0, 999), "000", "0"),
        (integer(0, 999), "336^{\\circ}", "336"),
        (integer(-9999, 9999), "-1,625.00", "-1625"),
    ],
)
def test_answers(parse, value, answer):
    assert parse(value) == answer


@pytest.mark.parametrize(
    ("parse", "value", "problem"),
    [
        (plain, True, "bool instead of text or a number"),
        (plain, ["1"], "list instead of text or a number"),
        (plain, float("inf"), "inf is not a number"),
        (boxed, "The answer is 5.", "no \\boxed{...} with an answer"),
        (boxed, "It is \\boxed{5", "no \\boxed{...} with an answer"),
        (boxed, "It is \\boxed{}", "no \\boxed{...} with an answer"),
        (boxed, 5, "int instead of text"),
        (after_hashes, "It is 5.", 'no "####" with an answer after it'),
        (several, [], "empty list"),
        (several, "['1', ", "a list or named fields as text, which cannot be read back"),
        (several, "['1', " + "-" * 15_000 + "1]", "a list or named fields as text, which cannot be read back"),
        (several, "['1'\n '2']", "a list as text without commas between its values"),
        (
            several,
            ["\x0crac{1}{2}"],
            "a control character (U+000C at character 1): remove it; in JSON, a backslash is written \\\\",
        ),
        (several, "['\\theta']", "'\\theta' at character 1: a LaTeX command lost its backslash"),
        (integer(0, 999), "1,2,3", "'1,2,3' is not an integer from 0 to 999"),
        (integer(0, 999), "1000", "'1000' is not an integer from 0 to 999"),
        (integer(0, 999), "-1", "'-1' is not an integer from 0 to 999"),
        (integer(0, 999), "3.5", "'3.5' is not an integer from 0 to 999"),
        (integer(0, 999), "１２", "'１２' is not an integer from 0 to 999"),
        (integer(0, 999), "9" * 10_000, f"'{'9' * 10_000}' is not an integer from 0 to 999"),
    ],
)
def test_bad_answers(parse, value, problem):
    with pytest.raises(BadField) as caught:
        parse(value)
    assert caught.value.args[-1] == problem


def turns(*roles):
    return [{"role": role, "content": "1+1?"} for role in roles]


NAN = float("nan")
PLAIN = DATA_SETS["math500"].layouts[1]
ROWS = DATA_SETS["math500"].layouts[0]


@pytest.mark.parametrize(
    ("layout", "values", "field", "problem"),
    [
        (PLAIN, {"answer": "2"}, "problem", "missing"),
        (PLAIN, {"problem": None, "answer": "2"}, "problem", "missing"),
        (PLAIN, {"problem": NAN, "answer": "2"}, "problem", "missing"),
        (PLAIN, {"problem": "1+1?", "answer": NAN}, "answer", "missing"),
        (PLAIN, {"problem": "1+1?", "answer": "NaN"}, "answer", "missing, written as 'NaN'"),
        (PLAIN, {"problem": "null", "answer": "2"}, "problem", "missing, written as 'null'"),
        (PLAIN, {"problem": 7, "answer": "2"}, "problem", "int instead of text or messages"),
        (PLAIN, {"problem": " \n", "answer": "2"}, "problem", "empty"),
        (PLAIN, {"problem": FOREIGN_SUFFIXES[0], "answer": "2"}, "problem", "empty"),
        (PLAIN, {"problem": "1+1?", "answer": "$ $"}, "answer", "empty"),
        (PLAIN, {"problem": "1+1?", "answer": {"a": 1}}, "answer", "dict instead of text or a number"),
        (PLAIN, {"problem": "x" * 20_001, "answer": "2"}, "problem", "20,001 characters, more than 20,000"),
        (PLAIN, {"problem": "x", "answer": "2" * 1_001}, "answer", "1,001 characters, more than 1,000"),
        (
            PLAIN,
            {"problem": "a\x00", "answer": "2"},
            "problem",
            "a control character (U+0000 at character 2): remove it; in JSON, a backslash is written \\\\",
        ),
        (
            PLAIN,
            {"problem": "a", "answer": "\x0crac{1}{2}"},
            "answer",
            "a control character (U+000C at character 1): remove it; in JSON, a backslash is written \\\\",
        ),
        (
            PLAIN,
            {"problem": "a\ud800b", "answer": "2"},
            "problem",
            "half a character (\\ud800 at character 2): text was cut off there, so correct it",
        ),
        (
            PLAIN,
            {"problem": "caf\udce9", "answer": "2"},
            "problem",
            "a byte that is not UTF-8 (0xE9 at character 4): save the file as UTF-8",
        ),
        (
            PLAIN,
            {"problem": "caf\ufffd", "answer": "2"},
            "problem",
            "a replacement character (U+FFFD at character 4): text was lost, so make the file again from its source",
        ),
        (
            PLAIN,
            {"problem": "\x0crac{1}{2}?", "answer": "2"},
            "problem",
            "a control character (U+000C at character 1): remove it; in JSON, a backslash is written \\\\",
        ),
        (
            PLAIN,
            {"problem": "$2\times 3$?", "answer": "6"},
            "problem",
            "'\\times' at character 3: a LaTeX command lost its backslash",
        ),
        (
            PLAIN,
            {"problem": "Who?", "answer": "\text{Eve}"},
            "answer",
            "'\\text{' at character 1: a LaTeX command lost its backslash",
        ),
        (
            PLAIN,
            {"problem": "a", "answer": "\\boxed{2}"},
            "answer",
            "'\\\\boxed{2}' is boxed: give the content of the box only",
        ),
        (ROWS, {"prompt": "1+1?", "reward_model": "2"}, "reward_model.ground_truth", "str instead of named fields"),
        (ROWS, {"prompt": "1+1?", "reward_model": {"style": "rule"}}, "reward_model.ground_truth", "missing"),
        *(
            (
                ROWS,
                {"prompt": prompt, "reward_model": {"ground_truth": "2"}},
                "prompt",
                f'{found}: supported are messages {{"role", "content"}} with one user turn, at the end, and at most '
                "one system turn before it; write the other turns into the user turn",
            )
            for prompt, found in (
                ([], "no turns"),
                (["1+1?"], "the turns (no role)"),
                ([{"from": "human"}, *turns("user")], "the turns (no role), user"),
                (turns("system"), "the turns system"),
                (turns("user", "assistant"), "the turns user, assistant"),
                (turns("user", "user"), "the turns user, user"),
                (turns("assistant", "user"), "the turns assistant, user"),
                (turns("system", "assistant", "user"), "the turns system, assistant, user"),
                (turns("system", "system", "user"), "the turns system, system, user"),
                (turns("user", "assistant", "user"), "the turns user, assistant, user"),
                (turns("x" * 21, "user"), f"the turns {'x' * 20}, user"),
                (turns(*["user", "tool"] * 4), "the turns user, tool, user, tool, user, 3 more"),
            )
        ),
        *(
            (ROWS, {"prompt": prompt, "reward_model": {"ground_truth": "2"}}, "prompt", problem)
            for prompt, problem in (
                ([{"role": "user", "content": None}], "the user turn is NoneType instead of text"),
                ([{"role": "system"}, *turns("user")], "the system turn is NoneType instead of text"),
                (
                    [{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}],
                    "the user turn is list instead of text",
                ),
            )
        ),
        (
            ROWS,
            {"prompt": "[{'role': 'user', 'content': '1+1?'}", "reward_model": {"ground_truth": "2"}},
            "prompt",
            "a list or named fields as text, which cannot be read back",
        ),
    ],
)
def test_bad_fields(layout, values, field, problem):
    with pytest.raises(BadField) as caught:
        read_problem(DATA_SETS["math500"], layout, Record("a.jsonl, line 1", values))
    assert caught.value.args == (field, problem)


def test_columns_with_dots_are_found_first():
    nested = {"prompt": "1+1?", "reward_model": {"ground_truth": "2"}}
    flat = {"prompt": "1+1?", "reward_model.ground_truth": "3"}
    for values, answer in ((nested, "2"), (flat, "3"), (nested | flat, "3")):
        assert DATA_SETS["math500"].layout(values) is ROWS
        assert read_problem(DATA_SETS["math500"], ROWS, Record("here", values)).answer == answer
    assert has_column({"a.b"}, "a.b") and has_column({"a"}, "a.b") and not has_column({"a.b"}, "a")
    assert DATA_SETS["math500"].layout({"prompt": "1+1?", "reward_model.style": "rule"}) is None


def test_limits_are_inclusive_and_lines_and_tabs_are_text():
    values = {"problem": "a\text\r\neq" + "x" * (MAX_PROBLEM - 9), "answer": "2" * MAX_ANSWER}
    problem = read_problem(DATA_SETS["math500"], PLAIN, Record("here", values))
    assert (len(problem.text), len(problem.answer), problem.stripped) == (MAX_PROBLEM, MAX_ANSWER, False)


def test_messages_in_a_csv_cell(tmp_path):
    """pandas writes nested columns as Python prints them; other tools write JSON."""
    published = LAYOUTS["dapo as published"][1]
    as_json = [
        {key: json.dumps(value) if key != "ability" else value for key, value in row.items()} for row in published
    ]
    for rows in (published, as_json):
        source = write_as(tmp_path / "rows.csv", rows)
        flags = ["--allow-count-mismatch", "--overwrite", "--output", str(tmp_path / "out.parquet")]
        assert main(["dapo_math_17k", "--input", str(source), *flags]) == 0
        frame = validate_rows(tmp_path / "out.parquet")
        got = [(e["problem"], r["ground_truth"]) for e, r in zip(frame.extra_info, frame.reward_model, strict=True)]
        assert got == [("What is $1+1$?", "2"), ("求 $2+3$ 的值。", "5")]


def test_only_olympiadbench_has_context_before_the_problem():
    def problem(context, name="olympiadbench", question="How many?"):
        values = {"context": context, "question": question, "answer": "2"}
        return read_problem(DATA_SETS[name], Layout("question", "answer", plain), Record("here", values)).text

    assert problem(" Let $N$ be given. ") == "Let $N$ be given.\n\nHow many?"
    assert problem("") == problem(None) == problem(NAN) == problem("Ignored.", name="math500") == "How many?"
    for context, question, wrong in (
        ("Let $N$ be given.", "", ("question", "empty")),
        (["Let"], "How many?", ("context", "list instead of text")),
        (
            "a\x00",
            "How many?",
            ("context", "a control character (U+0000 at character 2): remove it; in JSON, a backslash is written \\\\"),
        ),
    ):
        with pytest.raises(BadField) as caught:
            problem(context, question=question)
        assert caught.value.args == wrong


def test_leaving_out():
    year = contest_year("2024_AIME")
    assert year({"url": AOPS.format("2023_AIME_I")}) == "other contest"
    assert year({"url": AOPS.format("2024_AIME_II")}) is None
    assert year({"url": None}) is year({}) is year({"url": "https://example.org/2023"}) is None
    assert not_english_open_text({"image_1": {"bytes": b"x", "path": None}}) == "modality"
    assert not_english_open_text({"image_1": {"bytes": None, "path": None}, "image_2": NAN, "modality": ""}) is None
    assert not_english_open_text({"image_1": [], "language": NAN}) is None
    assert not_english_open_text({"language": "Chinese"}) == "language"
