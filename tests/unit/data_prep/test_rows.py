"""Tables of the user's own: every format, messages, further columns, what is refused, and how the rows are scored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from data_prep import rows
from data_prep.__main__ import main
from data_prep.contract import validate_rows
from data_prep.reading import InputError
from recipe.grading import sources
from recipe.grading.pool import GraderPool

TABLE = [
    {"Ask": "Name the capital of France.", "gold": "Paris", "level": 1},
    {"Ask": "How many legs has a spider, as a figure?", "gold": 8, "level": 2},
    {"Ask": "What does a thermometer measure?", "gold": "temperature", "level": 3},
]


def put(path, table=TABLE):
    frame = pd.DataFrame(table)
    if path.suffix == ".parquet":
        frame["gold"] = frame["gold"].map(str)
        frame.to_parquet(path)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".json":
        path.write_text(json.dumps(table))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


def run(tmp_path, table, *flags, question="ask", answer="gold"):
    path = table if hasattr(table, "suffix") else put(tmp_path / "quiz.jsonl", table)
    columns = ["--question", question, "--answer", answer]
    return main(["rows", "--input", str(path), *columns, "--output", str(tmp_path / "out"), *flags])


def frame(tmp_path, split="train"):
    return validate_rows(tmp_path / "out" / f"{split}.parquet")


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, kind):
    assert run(tmp_path, put(tmp_path / f"quiz.{kind}"), "--scorer", "exact_match") == 0
    found = frame(tmp_path)
    assert list(found.data_source) == ["exact_match/quiz"] * 3 and list(found.ability) == ["general"] * 3
    assert [reward["ground_truth"] for reward in found.reward_model] == ["Paris", "8", "temperature"]
    (turn,) = found.prompt[0]
    assert turn == {
        "role": "user",
        "content": "Name the capital of France.\n\nPlease reason step by step, and put your final answer within "
        "\\boxed{}.",
    }
    place = {"jsonl": "line 1", "json": "row 1", "csv": "line 2", "parquet": "row 1"}[kind]
    assert found.extra_info[0] == {
        "split": "train",
        "index": 0,
        "id": "exact_match/quiz/0",
        "template": "boxed",
        "problem": "Name the capital of France.",
        "source": f"quiz.{kind}, {place}",
    }


def test_the_rows_are_scored_by_the_scorer_they_name(tmp_path):
    assert run(tmp_path, TABLE, "--scorer", "exact_match", "--source", "mine", "--split", "validation") == 0
    row = frame(tmp_path, "validation").iloc[2]
    with GraderPool(1, time_limit=20.0) as pool:
        truth = row.reward_model["ground_truth"]
        assert pool.judge(row.data_source, r"so \boxed{temperature}", truth).correct
        assert not pool.judge(row.data_source, r"so \boxed{heat}", truth).correct


def test_the_manifest_says_what_was_read(tmp_path, capsys):
    assert run(tmp_path, TABLE, "--extra", "Level") == 0
    manifest = json.loads((tmp_path / "out" / "train.manifest.json").read_text())
    assert (manifest["set"], manifest["split"], manifest["count_matches"]) == ("quiz", "train", None)
    assert manifest["table"] == {"question": "ask", "answer": "gold", "extra": ["level"], "scorer": None}
    assert manifest["counts"]["read"] == manifest["counts"]["written"] == 3
    assert [extra["level"] for extra in frame(tmp_path).extra_info] == ["1", "2", "3"]
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/out/train.parquet: read 3, written 3\n"
    assert err.splitlines()[-1] == (
        "data_source quiz: name its scorer in every command that uses the rows, "
        "reward.scorers.quiz=package.module:function (docs/scorers.md)"
    )


def test_a_source_of_the_project_needs_no_scorer(tmp_path, capsys):
    table = [{"ask": "One half of 5?", "gold": "5/2"}]
    assert run(tmp_path, table, "--source", "math500", "--split", "test") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "data_source math500: scored by math"
    assert frame(tmp_path, "test").ability[0] == "math"


def test_messages_keep_their_system_turn(tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name the capital of France."}]
    table = [{"messages": turns, "gold": ["Paris", 1]}, {"messages": turns[1:], "gold": {"b": None}}]
    flags = ("--scorer", "json", "--template", "none", "--keep-duplicates")
    assert run(tmp_path, table, *flags, question="messages") == 0
    found = frame(tmp_path)
    assert [[dict(turn) for turn in prompt] for prompt in found.prompt] == [turns, turns[1:]]
    assert [reward["ground_truth"] for reward in found.reward_model] == ['["Paris", 1]', '{"b": null}']


def test_fields_of_columns_and_instructions_of_others(tmp_path):
    text = "Name the capital of France.\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    table = [{"data": {"q": text}, "reply": {"text": "Paris"}}]
    for template, expected in (("boxed", text), ("none", text)):
        assert (
            run(
                tmp_path,
                table,
                *("--template", template, "--overwrite", "--scorer", "exact_match"),
                question="data.q",
                answer="reply.text",
            )
            == 0
        )
        assert frame(tmp_path).prompt[0][0]["content"] == expected


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_column_whose_name_has_a_dot(tmp_path, kind):
    """As pandas flattens nested fields; it comes before a field of the same path."""
    table = [{"q.Text": "Name the capital of France.", "gold": "Paris", "info.level": 1}]
    if kind == "jsonl":
        table = [
            {**table[0], "q": {"text": "another"}},
            {"q": {"text": "And of Peru?"}, "gold": "Lima", "info.level": 2},
        ]
    path = put(tmp_path / f"quiz.{kind}", table)
    flags = ("--scorer", "exact_match", "--extra", "info.level")
    assert run(tmp_path, path, *flags, question="q.text") == 0
    expected = ["Name the capital of France.", "And of Peru?"][: len(table)]
    assert [extra["problem"] for extra in frame(tmp_path).extra_info] == expected
    assert [extra["info.level"] for extra in frame(tmp_path).extra_info] == ["1", "2"][: len(table)]


def test_duplicates_and_contamination_as_with_the_named_sets(tmp_path, capsys):
    long = [
        "Which planet of the solar system has the largest number of known moons, as counted by astronomers today?",
        "Which river flows through the most countries on its way from the spring to the sea, by common counts?",
    ]
    table = [{"ask": text, "gold": "x"} for text in (long[0], long[0], long[1])]
    assert run(tmp_path, table[:1], "--split", "test", "--scorer", "exact_match", "--source", "held") == 0
    capsys.readouterr()
    held = str(tmp_path / "out" / "test.parquet")
    assert run(tmp_path, table, "--scorer", "exact_match", "--benchmarks", held, "--drop-contaminated") == 0
    counts = json.loads((tmp_path / "out" / "train.manifest.json").read_text())["counts"]
    assert (counts["exact_duplicates"], counts["contaminated"], counts["written"]) == (1, 1, 1)
    assert frame(tmp_path).extra_info[0]["problem"] == long[1]


PROGRAMS = [
    {"ask": f"Write a program that prints {word}.", "gold": word, "lang": lang}
    for word in ("hello", "bye")
    for lang in ("python", "c")
]


@pytest.mark.parametrize("flags", [(), ("--keep-duplicates",), ("--split", "test")])
def test_rows_that_differ_in_a_further_column_are_different_rows(tmp_path, capsys, flags):
    """A scorer grades with the column; every question is there twice, as in a set that is published x2."""
    assert run(tmp_path, PROGRAMS, "--extra", "lang", "--scorer", "exact_match", *flags) == 0
    out, err = capsys.readouterr()
    assert out.endswith("read 4, written 4\n") and "REPEATED" not in err
    found = frame(tmp_path, "test" if flags[:1] == ("--split",) else "train")
    assert [reward["ground_truth"] for reward in found.reward_model] == ["hello", "hello", "bye", "bye"]
    assert [extra["lang"] for extra in found.extra_info] == ["python", "c", "python", "c"]


def test_a_conflict_needs_the_same_further_columns(tmp_path):
    table = [*PROGRAMS, {**PROGRAMS[0], "gold": "HELLO"}, PROGRAMS[3]]
    assert run(tmp_path, table, "--extra", "lang", "--scorer", "exact_match") == 0
    counts = json.loads((tmp_path / "out" / "train.manifest.json").read_text())["counts"]
    assert (counts["conflicting"], counts["exact_duplicates"], counts["written"]) == (2, 1, 3)
    assert [extra["lang"] for extra in frame(tmp_path).extra_info] == ["c", "python", "c"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_that_differ_in_the_system_turn_are_different_rows(tmp_path, split):
    user = {"role": "user", "content": "Name this animal, which barks."}
    table = [
        {"ask": [{"role": "system", "content": f"Answer in {language}."}, user], "gold": word}
        for language, word in (("French", "chien"), ("German", "Hund"))
    ]
    table += [{"ask": user["content"], "gold": "dog"}]
    assert run(tmp_path, table, "--scorer", "exact_match", "--split", split) == 0
    assert [reward["ground_truth"] for reward in frame(tmp_path, split).reward_model] == ["chien", "Hund", "dog"]


def test_a_repeated_table(tmp_path, capsys):
    """One of each, unless duplicates are kept."""
    assert run(tmp_path, TABLE * 3, "--scorer", "exact_match") == 0
    out, err = capsys.readouterr()
    assert "EVERY ROW IS REPEATED, usually 3 times; one of each is kept: 3 rows" in err
    assert out.endswith("read 9, repetition undone 6, written 3\n")
    assert run(tmp_path, TABLE * 3, "--scorer", "exact_match", "--keep-duplicates", "--overwrite") == 0
    out, err = capsys.readouterr()
    assert out.endswith("read 9, written 9\n") and "REPEATED" not in err


CAPITALS = [
    {"ask": f"What is the name of the capital city of the country {country}?", "gold": city}
    for country, city in [
        ("Chad", "N'Djamena"),
        ("Peru", "Lima"),
        ("Kenya", "Nairobi"),
        ("Norway", "Oslo"),
        ("Cuba", "Havana"),
        ("Japan", "Tokyo"),
    ]
]


@pytest.mark.parametrize(
    ("flags", "conflicting"),
    [(("--scorer", "exact_match"), 0), (("--scorer", "regex"), 0), ((), 0), (("--scorer", "math"), 6)],
)
def test_only_mathematics_has_near_duplicates(tmp_path, flags, conflicting):
    """Six questions that differ in one ordinary word, and another; a table without a scorer has one of its own."""
    assert run(tmp_path, [*CAPITALS, TABLE[1]], *flags) == 0
    counts = json.loads((tmp_path / "out" / "train.manifest.json").read_text())["counts"]
    assert (counts["conflicting"], counts["near_duplicates"], counts["written"]) == (conflicting, 0, 7 - conflicting)


def test_answers_in_words_conflict_unless_they_are_the_same_text(tmp_path):
    text = "Which planet of the solar system has the largest number of known moons, as counted by astronomers today?"
    table = [{"ask": text, "gold": "0.5"}, {"ask": text, "gold": "1/2"}, TABLE[0] | {"ask": "x"}]
    table = [{"ask": row["ask"], "gold": row["gold"]} for row in table]
    for scorer, conflicting in (("exact_match", 2), ("math", 0)):
        assert run(tmp_path, table, "--scorer", scorer, "--overwrite") == 0
        counts = json.loads((tmp_path / "out" / "train.manifest.json").read_text())["counts"]
        assert counts["conflicting"] == conflicting


BAD_ROWS = [
    ({"ask": None, "gold": "x"}, "quiz.jsonl, line 2, field ask: missing"),
    ({"ask": 5, "gold": "x"}, "quiz.jsonl, line 2, field ask: int instead of text or messages"),
    ({"ask": "q", "gold": " "}, "quiz.jsonl, line 2, field gold: empty"),
    ({"ask": "q", "gold": "x" * 20_001}, "quiz.jsonl, line 2, field gold: 20,001 characters, more than 20,000"),
    ({"ask": "q", "gold": "12"}, "quiz.jsonl, line 2, field gold: '12' is not a letter: give that of the right choice"),
    ({"ask": "q", "gold": "A", "level": None}, "quiz.jsonl, line 2, field level: missing"),
    (
        {"ask": [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "q"}], "gold": "A"},
        "quiz.jsonl, line 2, field ask: the turns assistant, user: supported are messages",
    ),
    (
        {"ask": [{"role": role, "content": "q"} for role in ("system", "system", "user")], "gold": "A"},
        "quiz.jsonl, line 2, field ask: the turns system, system, user: supported are messages",
    ),
]


@pytest.mark.parametrize(("row", "words"), BAD_ROWS)
def test_a_bad_row_is_named_with_file_row_and_column(tmp_path, capsys, row, words):
    table = [{"ask": "good", "gold": "A", "level": 1}, {"level": 1, **row}]
    assert run(tmp_path, table, "--scorer", "multiple_choice", "--extra", "level") == 2
    err = capsys.readouterr().err.splitlines()
    assert words in err[0]
    assert err[-1].startswith("error: 1 malformed row, so nothing was written; correct the input, or pass --drop-")
    assert not (tmp_path / "out").exists()


def test_a_file_in_another_encoding_and_broken_json_say_what_to_do(tmp_path, capsys):
    path = tmp_path / "quiz.jsonl"
    path.write_bytes('{"ask": "Spell caf\u00e9.", "gold": "x"}\n'.encode("latin-1") + b'{"ask": "b" "gold": "y"}\n')
    assert run(tmp_path, path) == 2
    assert capsys.readouterr().err.splitlines() == [
        "quiz.jsonl, line 1, field ask: a byte that is not UTF-8 (0xE9 at character 10): save the file as UTF-8",
        "quiz.jsonl, line 2: is not JSON (Expecting ',' delimiter: character 13)",
        "error: 2 malformed rows, so nothing was written; correct the input, or pass --drop-malformed to leave out "
        "what is malformed (the report then lists it all)",
    ]


def test_bad_rows_can_be_left_out(tmp_path):
    assert run(tmp_path, [*TABLE, {"ask": "q", "gold": None}], "--drop-malformed") == 0
    assert len(frame(tmp_path)) == 3


@pytest.mark.parametrize(
    ("flags", "columns", "words"),
    [
        ((), {"question": "asks"}, "has no column asks (--question), only ask, gold, level; did you mean ask?"),
        ((), {"answer": "reply"}, "has no column reply (--answer), only ask, gold, level"),
        ((), {"question": "as.k"}, "has no column as.k (--question), only ask, gold, level; did you mean ask?"),
        (("--extra", "levels"), {}, "has no column levels (--extra), only ask, gold, level; did you mean level?"),
        (("--source", "my set"), {}, "--source my set: must consist of letters, digits, '.', '_' and '-'"),
        (("--scorer", "exact"), {}, "--scorer exact is neither package.module:function nor one of math, "),
        (("--scorer", "a.b:c"), {}, "rows name only the project's scorers, never code; leave it out here, and pass "),
        (("--scorer", "reasoning_gym/chain_sum"), {}, "its rows are made with paec data reasoning_gym --task"),
        (("--split", "test", "--keep-duplicates"), {}, "need --split train"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, capsys, flags, columns, words):
    assert run(tmp_path, TABLE, *flags, **columns) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line


def test_an_extra_column_may_not_hide_a_field(tmp_path, capsys):
    assert run(tmp_path, [{"ask": "q", "gold": "a", "index": 1}], "--extra", "index") == 2
    assert "--extra index: every row has a field of this name already" in capsys.readouterr().err


def test_a_table_that_commas_do_not_separate(tmp_path, capsys):
    for name, mark in (("quiz.csv", ";"), ("tabs.csv", "\t")):
        (tmp_path / name).write_text(f"ask{mark}gold\nWhat?{mark}That\n")
        assert run(tmp_path, tmp_path / name) == 2
        assert capsys.readouterr().err.endswith("; separate the columns by commas\n")


def test_a_table_without_rows(tmp_path, capsys):
    assert run(tmp_path, put(tmp_path / "quiz.jsonl", [])) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/quiz.jsonl: has no rows; give a file that has some\n"


def test_a_missing_file_is_no_hub_id(tmp_path, capsys):
    assert run(tmp_path, tmp_path / "nowhere.jsonl") == 2
    assert "does not exist, and is not a hub id of the form owner/name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "name"), [("data/My quiz.v2.jsonl", "My_quiz.v2"), ("owner/set", "set"), ("_x.csv", "x")]
)
def test_a_data_set_without_a_name_has_that_of_its_input(given, name):
    assert rows.name_of(given) == name


def test_a_named_set_with_a_scorer_needs_one_entry(tmp_path):
    """Its rows' data source names the scorer, so that no other table has to."""
    from dataclasses import replace

    from data_prep.sets import DATA_SETS

    data_set = replace(DATA_SETS["math500"], name="new_set", scorer="multiple_choice")
    assert data_set.data_source == "multiple_choice/new_set"
    assert sources.kind(data_set.data_source) == "multiple_choice"
    for known in DATA_SETS.values():
        assert known.data_source == known.name and sources.kind(known.name) == "math"


def test_errors_are_input_errors(tmp_path):
    from data_prep.reading import open_source

    source = open_source(str(put(tmp_path / "quiz.jsonl")), "train")
    with pytest.raises(InputError, match="has no column nope"):
        rows.data_set_of(source, "mine", "nope", "gold")


def test_an_interrupted_preparation_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    command = [sys.executable, "-m", "data_prep", "rows", "--input", "a.jsonl", "--question", "q", "--answer", "a"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    started = subprocess.Popen(
        [*command, "--output", "out"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    with open(tmp_path / "a.jsonl", "w"):  # waits until the command reads it
        started.send_signal(signal.SIGINT)
        errors = started.communicate(timeout=60)[1]
    assert (started.returncode, errors) == (130, "interrupted; nothing was written\n")
